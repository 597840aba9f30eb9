"""Predictions of detectors from elsewhere, scored as cells of the suite `external`. Imports no torch."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import detrbench.environment as environments
from detrbench.data import layouts
from detrbench.data.coco import CocoDataset
from detrbench.errors import DataError, UsageError
from detrbench.files import sha256, write_atomic
from detrbench.measure import ap_images, detections, diagnosis, protocols, scoring
from detrbench.measure.detections import Detections
from detrbench.measure.diagnosis import Suspicion
from detrbench.results.folder import CellFolder
from detrbench.results.records import Accuracy
from detrbench.results.store import ResultsStore
from detrbench.run.keys import folder_name, predictions_key
from detrbench.suite.cells import Cell
from detrbench.suite.schema import EXTERNAL, Scale
from detrbench.words import problem_of_name


@dataclass(frozen=True)
class Evaluated:
    """A cell of the suite `external` after scoring; `place` names it to `compare`."""

    name: str
    scale: str
    folder: CellFolder
    record: Accuracy
    scored: Detections
    suspicions: Sequence[Suspicion]

    @property
    def place(self) -> str:
        return f"{self.folder.path.parent.parent}:{self.name}"


def open_truth(data: Path) -> CocoDataset:
    """The evaluation split of a COCO folder, or one annotation file; images need not be there.

    Raises:
        DataError: no such annotations, or broken ones.
    """
    if data.is_file():
        return CocoDataset(layouts.coco.of_files(data.parent, data, data.parent))
    layout = layouts.recognise(data)
    split = layout.read(data, "val")
    if layout is layouts.coco:  # without asking where its images are
        split = layouts.coco.of_files(data, split.place, split.images)
    return CocoDataset(split)


def default_name(predictions: Path) -> str:
    """The file's name without what says that it is a file of results."""
    return re.sub(r"(\.bbox)?(\.json)?(\.gz)?$", "", predictions.name) or "predictions"


def evaluate(predictions: Path, data: Path, dataset: CocoDataset, name: str, store: ResultsStore) -> Evaluated:
    """Diagnoses and scores a file of predictions, and keeps the record as a run would.

    Args:
        predictions: in COCO's result format, as it is or packed.
        data: the folder or file that `dataset` was opened from; its name becomes the scale.
        dataset: from `open_truth`.
        name: the cell's id; an earlier cell of that name on the same data is replaced.
        store: the results folder.

    Raises:
        DataError: a file that is no predictions, or none of these images.
        UsageError: a name that no cell can have.
        Unwritable: the results folder cannot be written.
    """
    problem = problem_of_name(name)
    if problem:
        raise UsageError(f"the cell's name: {problem}", hint="--name NAME")
    started = time.monotonic()
    found = diagnosis.diagnose(detections.read_results(predictions), dataset)
    if not len(found.detections):
        what = f"{predictions}: none of its images is in {dataset.place}"
        raise DataError(what, hint="give the --data that they are of; ids have to be those of the annotation file")
    protocol = protocols.get("accuracy")
    best = found.detections.best(protocol.top)
    evaluation = scoring.evaluate(best, dataset, protocol)
    cell = _cell(name, data, store)
    folder, file_hash = store.folder(EXTERNAL, cell.scale, folder_name(cell)), sha256(predictions)
    key = predictions_key(file_hash, dataset.annotations_digest)  # what images look like is no matter
    folder.write_cell(cell.describe())
    detections.write(folder.detections, best, key)
    write_atomic(
        folder.images,
        ap_images.pack({protocol.name: evaluation.matches}, dataset.image_ids, key, {protocol.name: evaluation.drawn}),
    )
    source = {"file": predictions.name, "sha256": file_hash}
    environment, seconds = environments.capture_without_torch(), time.monotonic() - started
    folder.write_envelope(
        "accuracy",
        key,
        {protocol.name: evaluation.record},
        environment,
        seconds,
        device="cpu",
        weights="elsewhere",
        source=source,
    )
    folder.set_state(name, "accuracy", "done")
    _write_suite(cell, store)
    return Evaluated(name, cell.scale, folder, evaluation.record, best, found.suspicions)


def _cell(name: str, data: Path, store: ResultsStore) -> Cell:
    where = data.resolve()
    scale = re.sub(r"[^A-Za-z0-9_.-]+", "_", where.stem if where.is_file() else where.name) or "data"
    known = [cell.id for cell in store.cells(EXTERNAL, scale)]
    index = known.index(name) if name in known else len(known)
    settings = Scale(data="coco", path=str(where))
    return Cell(name, EXTERNAL, scale, index, None, {}, {}, settings)


def _write_suite(cell: Cell, store: ResultsStore) -> None:
    """suite.yaml lists every cell that there is, so that reports, checks and comparisons read it as any other."""
    ids = [each.id for each in store.cells(EXTERNAL, cell.scale)]
    document = {
        "name": EXTERNAL,
        "title": "Predictions of detectors from elsewhere",
        "variants": [{"id": each, "model": None} for each in ids],
        "scales": {cell.scale: {"data": "coco", "path": cell.settings.path}},
        "measure": ["accuracy"],
    }
    store.write_suite(EXTERNAL, cell.scale, document)
