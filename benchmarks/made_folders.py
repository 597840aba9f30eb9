"""Makes up what the limits are tried on: results of many cells, images of a large data set.

python benchmarks/made_folders.py results FOLDER 10000     FOLDER/suites/*.yaml and FOLDER/results
python benchmarks/made_folders.py images FOLDER 120000     a COCO folder, FOLDER/data
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from detrbench import yaml12
from detrbench.models.parts import KINDS
from detrbench.results import records
from detrbench.results.records import Accuracy, Complexity, Estimate, Latency, Memory, TrainingHistory
from detrbench.run import execute
from detrbench.run.plan import WorkItem
from detrbench.run.work import RunOptions
from detrbench.suite import loading as suites

CELLS_IN_A_SUITE = 500
CLASSES, EPOCHS, ROUNDS = 80, 12, 300  # of a made-up record: as many as those of COCO have
SUITE = """\
name: {name}
title: Made up
variants:
  - id: "sparse-{{keep_ratio}}"
    model: sparse_detr_tiny
    matrix: {{keep_ratio: {keep_ratios}}}
scales:
  smoke: {{data: shapes, image_size: 64, seed: {seed}, num_train: 8, num_val: 4, epochs: 12}}
measure: [complexity, accuracy, memory, latency]
budgets: {{learns: ap >= 1, counts: gflops <= 1000}}
"""


def make_suites(folder: Path, cells: int) -> list[Path]:
    """Suites of `CELLS_IN_A_SUITE` rows each, as files."""
    folder.mkdir(parents=True)
    files = []
    for seed, first in enumerate(range(0, cells, CELLS_IN_A_SUITE)):
        rows = min(CELLS_IN_A_SUITE, cells - first)
        ratios = [round((i + 1) / (rows + 1), 6) for i in range(rows)]
        files.append(folder / f"many_{seed}.yaml")
        files[-1].write_text(SUITE.format(name=files[-1].stem, keep_ratios=ratios, seed=seed))
    return files


def make_results(root: Path, files: Sequence[Path]) -> None:
    """What a run of these suites would leave, every measure done under its own key, with made-up figures."""
    options = RunOptions(results=root)
    for file in files:
        prepared = execute.prepare(suites.load(str(file)), options)
        suite = prepared.loaded.suite
        prepared.store.write_suite(suite.name, prepared.scale, suite.model_dump(mode="json", exclude_unset=True))
        for item in prepared.items:
            _put(item, prepared.environment)


def _put(item: WorkItem, environment: Mapping[str, Any]) -> None:
    """A measure of a cell as done; written without waiting for the disk, as nothing is lost with it."""
    folder = item.folder
    if not folder.path.is_dir():
        (folder.path / "checkpoint").mkdir(parents=True)
        folder.cell.write_text(yaml12.dump(item.cell.describe()))
    for file in folder.beside(item.measure):
        file.write_bytes(b"weights")
    record = records.to_json(_record(item))
    envelope = {
        "schema": 1,
        "measure": item.measure,
        "key": item.key,
        "created": "2026-01-01T00:00:00+00:00",
        "seconds": 1.0,
        "device": "cpu",
        "weights": item.weights,
        "environment": dict(environment),
        "records": {"training" if item.measure == "training" else "common": record},
    }
    folder.record(item.measure).write_text(json.dumps(envelope, indent=1))
    status = folder.read_status()
    status["measures"][item.measure] = {"state": "done", "why": None}
    folder.status.write_text(json.dumps({**status, "cell": item.cell.id, "updated": envelope["created"]}))


def _record(item: WorkItem) -> Any:
    """A record of the size of a real one."""
    rng = random.Random(item.key)
    value = rng.uniform(20, 60)
    return {"complexity": _complexity, "accuracy": _accuracy, "memory": _memory, "latency": _latency,
            "training": _training}[item.measure](value, rng)  # fmt: skip


def _complexity(value: float, rng: random.Random) -> Complexity:
    parts = dict.fromkeys(KINDS, value / len(KINDS))
    inputs = [{"height": 800.0, "width": 900.0 + i, "weight": 1.0, "gflops": value} for i in range(40)]
    return Complexity("common", 1, "made up", value, parts, 40.0, 40.0, parts, inputs, {})


def _accuracy(value: float, rng: random.Random) -> Accuracy:
    names = ["AP", "AP50", "AP75", "APS", "APM", "APL", "AR1", "AR10", "AR100", "ARS", "ARM", "ARL"]
    classes = {f"class {i}": value for i in range(CLASSES)}
    ap = Estimate(value, "points", 4, value - 1, value + 1)
    return Accuracy("common", 1, "made up", 4, dict.fromkeys(names, value), classes, ap, ap)


def _memory(value: float, rng: random.Random) -> Memory:
    return Memory("common", 1, "made up", "cpu", 1, 64, 64, value, 2 * value, 10 * value)


def _latency(value: float, rng: random.Random) -> Latency:
    samples = [value * rng.uniform(0.99, 1.01) for _ in range(ROUNDS)]
    median = Estimate(value, "ms", ROUNDS, 0.99 * value, 1.01 * value)
    return Latency("common", 2, "made up", "cpu", "float32", 1, 64, 64, 2, median, value, 1000 / value, {}, samples,
                   processes=3, session="s", host_ms=samples, cpu_ms=samples)  # fmt: skip


def _training(value: float, rng: random.Random) -> TrainingHistory:
    epochs = [{"epoch": i + 1, "loss": 10 / (i + 1), "lr": 1e-4, "seconds": 1.0, "AP": value} for i in range(EPOCHS)]
    return TrainingHistory({}, epochs, 1.0, 1)


def make_images(root: Path, number: int) -> None:
    """A COCO folder of so many images, all of them names of a few files, with seven boxes each."""
    (root / "annotations").mkdir(parents=True)
    (root / "val2017").mkdir()
    records, boxes = [], []
    for i in range(number):
        name, first = root / "val2017" / f"{i}.jpg", i // 10_000 * 10_000  # a file may have only so many names
        if i == first:
            Image.new("RGB", (64, 48), (i // 10_000, 90, 120)).save(name)
        else:
            os.link(name.with_name(f"{first}.jpg"), name)
        records.append({"id": i + 1, "file_name": name.name, "width": 64, "height": 48})
        boxes += [
            {"id": 7 * i + k + 1, "image_id": i + 1, "category_id": 1, "bbox": [k, k, 9, 9], "area": 81, "iscrowd": 0}
            for k in range(7)
        ]
    document = {"images": records, "annotations": boxes, "categories": [{"id": 1, "name": "cell"}]}
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(document))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("results", "images"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("number", type=int, help="of cells, or of images")
    given = parser.parse_args()
    if given.what == "results":
        make_results(given.folder / "results", make_suites(given.folder / "suites", given.number))
    else:
        make_images(given.folder / "data", given.number)


if __name__ == "__main__":
    main()
