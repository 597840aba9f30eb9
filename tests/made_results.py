"""Results on disk as `run` leaves them, with figures chosen by a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detrbench.measure import ap_images
from detrbench.measure.ap_interval import ClassMatches, Matches
from detrbench.results.store import ResultsStore
from detrbench.run.keys import folder_name
from detrbench.suite import loading as suites

SUITE = """\
name: demo
title: A demonstration
variants:
  - {id: deformable, model: efficient_detr_tiny}
  - {id: sparse, model: sparse_detr_tiny}
  - {id: published, model: null, published_only: true}
scales:
  smoke: {data: shapes, image_size: 64}
"""
ENVIRONMENT = {"gpus": ["NVIDIA H200"], "cpu": "A CPU", "cores": 2}


def matches(seed: int, skill: float, images: int = 80) -> Matches:
    """One class; a detector that finds a share `skill` of two objects in each image, and some that are not there.

    With other seeds it finds others.
    """
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(images), 3)
    hit = (rng.random(len(image)) < skill) & (np.arange(len(image)) % 3 < 2)
    order = np.argsort(-(rng.normal(0, 1, len(image)) + hit))
    one = ClassMatches(image[order], hit[order][None], np.zeros((1, len(image)), bool), np.full(images, 2))
    return Matches(images, [one])


class MadeResults:
    """A folder with the suite `demo`, into which records are put; of trained cells, or of given weights (`given`)."""

    def __init__(self, folder: Path, session: str = "s", results: str = "results", seeds: int = 1) -> None:
        self.folder, self.session = folder, session
        (folder / "demo.yaml").write_text(SUITE)
        self.store = ResultsStore(folder / results)
        self.given = False
        found = suites.load(str(folder / "demo.yaml")).cells("smoke", {"seeds": seeds})
        self.cells = {cell.id: cell for cell in found}

    def put(
        self,
        cell: str,
        measure: str,
        record: dict[str, Any],
        device: str = "cuda",
        others: Mapping[str, dict[str, Any]] | None = None,
        **environment: Any,
    ) -> None:
        where = self.store.folder("demo", "smoke", folder_name(self.cells[cell]))
        where.write_cell(self.cells[cell].describe())
        weights = "checkpoint" if self.given else "trained"
        extra = {"device": device, "weights": weights}
        records = {"common": record, **(others or {})}
        where.write_envelope(measure, f"{cell} {measure}", records, ENVIRONMENT | environment, 1.0, **extra)
        where.set_state(cell, measure, "done")

    def state(self, cell: str, measure: str, state: Any, why: str) -> None:
        where = self.store.folder("demo", "smoke", folder_name(self.cells[cell]))
        where.write_cell(self.cells[cell].describe())
        where.record(measure).unlink(missing_ok=True)
        where.set_state(cell, measure, state, why)

    def gflops(self, cell: str, value: float) -> None:
        self.put(cell, "complexity", {"protocol_version": 1, "gflops": value, "params_millions": 1.0})

    def ap(self, cell: str, value: float, skill: float | None = None, half: float = 2.0) -> None:
        estimate = {"value": value, "unit": "AP points", "n": 80, "low": value - half, "high": value + half}
        self.put(cell, "accuracy", {"protocol_version": 1, "ap": estimate})
        images = self.store.folder("demo", "smoke", folder_name(self.cells[cell])).images
        images.unlink(missing_ok=True)
        if skill is not None:
            seed = int(cell.partition("#")[2] or 0)
            images.write_bytes(ap_images.pack({"common": matches(seed, skill)}, list(range(80)), f"{cell} accuracy"))

    def latency(
        self, cell: str, milliseconds: Sequence[Sequence[float]], optimised: float | None = None, **environment: Any
    ) -> None:
        """Samples by process and round; `optimised` is the share of them that the form for inference takes."""
        others = {} if optimised is None else {"optimised": self._timed(milliseconds, optimised)}
        self.put(cell, "latency", self._timed(milliseconds), others=others, **environment)

    def _timed(self, milliseconds: Sequence[Sequence[float]], share: float = 1.0) -> dict[str, Any]:
        flat = [share * value for each in milliseconds for value in each]
        return {
            "protocol_version": 2,
            "median_ms": {"value": float(np.median(flat)), "unit": "ms", "n": len(flat)},
            "samples_ms": flat,
            "processes": len(milliseconds),
            "session": self.session,
        }


def three_trainings(folder: Path) -> MadeResults:
    """Two cells with three trainings each, of which the second is better."""
    made = MadeResults(folder, seeds=3)
    for cell, skills in (("deformable", (0.5, 0.52, 0.54)), ("sparse", (0.7, 0.75, 0.8))):
        for number, skill in enumerate(skills):
            made.ap(f"{cell}#{number}" if number else cell, 100 * skill, skill)
    return made


def times(seed: int, middle: float, noise: float = 0.01, processes: int = 3, rounds: int = 20) -> list[list[float]]:
    """Samples by process and round."""
    drawn = np.random.default_rng(seed).lognormal(0, noise, (processes, rounds))
    return (middle * drawn).tolist()
