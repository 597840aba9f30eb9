"""A folder in which a suite is run, edited, killed and damaged, and what every figure in it has to be.

A step costs nothing: it reads what a real one would read (options, data, weights) and leaves a figure that says so. A
figure that does not fit the suite, the data and the weights as they are now is therefore seen, whatever made it stale.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import wholes
import yaml

from detrbench import cli, environment
from detrbench.results.folder import CellFolder
from detrbench.run import steps, work

RATIOS = (0.1, 0.2, 0.3)


def figure(*parts: Any) -> int:
    """A number that stands for what a figure depends on."""
    return int(hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12], 16)


@dataclass
class Suite:
    """What the suite says now: `ratios` are rows that are trained, one more row has weights of its own."""

    ratios: tuple[float, ...] = RATIOS[:2]
    epochs: int = 2
    train: int = 0  # versions of the data and of the weights
    val: int = 0
    weights: int = 0

    def of(self, row: str) -> dict[str, int]:
        """The figure of each measure of a row."""
        ratio = 0.5 if row == "own" else float(row.removeprefix("row-"))
        trained = (
            figure("weights", self.weights) if row == "own" else figure("training", ratio, self.epochs, self.train)
        )
        found = {"complexity": figure("complexity", ratio), "accuracy": figure("accuracy", ratio, trained, self.val)}
        return found if row == "own" else {**found, "training": trained}

    @property
    def rows(self) -> list[str]:
        return [*(f"row-{ratio}" for ratio in self.ratios), "own"]


@dataclass
class World:
    """The folder. `told` gets a line for each step that begins; `before` is called first."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="detrbench-world-")))
    suite: Suite = field(default_factory=Suite)
    before: Callable[[str, str], None] = lambda row, measure: None

    def __post_init__(self) -> None:
        self.patch, self.here, self.clock = pytest.MonkeyPatch(), os.getcwd(), 0
        self.patch.setattr(steps, "take", self._take)
        self.patch.setattr(environment, "capture", lambda: {"torch": "test", "cores": 2})
        self.patch.setenv("DETRBENCH_CACHE", str(self.folder / "cache"))
        os.chdir(self.folder)
        for split in ("train", "val"):
            self.write_data(split)
        self.write_weights()
        self.write_suite()

    def close(self) -> None:
        self.patch.undo()
        os.chdir(self.here)
        shutil.rmtree(self.folder, ignore_errors=True)

    # ------------------------------------------------------------------------------------------- what a figure needs

    def write_suite(self) -> None:
        matrix = {
            "id": "row-{keep_ratio}",
            "model": "sparse_detr_r50",
            "matrix": {"keep_ratio": list(self.suite.ratios)},
        }
        own = {"id": "own", "model": "sparse_detr_r50", "options": {"keep_ratio": 0.5}, "checkpoint": "own.bin"}
        scale = {"data": "coco", "path": str(self.folder / "data"), "epochs": self.suite.epochs, "init": "none"}
        scale |= {"lr_backbone": 1e-4}
        document = {
            "name": "demo",
            "title": "A demonstration",
            "defaults": {"backbone": "tiny"},
            "variants": [matrix, own],
            "scales": {"smoke": scale},
            "measure": ["complexity", "accuracy"],
        }
        (self.folder / "demo.yaml").write_text(yaml.safe_dump(document, sort_keys=False))

    def write_data(self, split: str) -> None:
        """One image, in which the version stands: another version has as many bytes."""
        version = getattr(self.suite, split)
        image = self.folder / "data" / f"{split}2017" / "1.bmp"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(wholes.picture(32, 32, "bmp", seed=version))
        self._changed(image)
        document = {**wholes.coco(), "images": [{"id": 1, "file_name": "1.bmp", "width": 32, "height": 32}]}
        document["annotations"] = [{**document["annotations"][0], "image_id": 1}]
        annotations = self.folder / "data" / "annotations" / f"instances_{split}2017.json"
        annotations.parent.mkdir(exist_ok=True)
        annotations.write_text(json.dumps(document))

    def write_weights(self) -> None:
        (self.folder / "own.bin").write_text(f"weights {self.suite.weights}")
        self._changed(self.folder / "own.bin")

    def _changed(self, path: Path) -> None:
        """A later time of change than any before: a file system's clock may stand still for milliseconds."""
        self.clock += 1
        os.utime(path, ns=(self.clock * 10**9, self.clock * 10**9))

    # -------------------------------------------------------------------------------------------------------- running

    def run(self, *arguments: str) -> tuple[int, list[tuple[str, str]], str]:
        """(exit code, the steps that were taken, stderr) of `detrbench run`."""
        self.steps.unlink(missing_ok=True)
        err = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
            code = self.typed(*arguments)
        return code, self.taken(), err.getvalue()

    def typed(self, *arguments: str) -> int:
        """The exit code of `detrbench run`, as a process of its own would begin."""
        work.dataset_of.cache_clear()
        return cli.main(["run", "demo.yaml", *arguments])

    def apart(self, *arguments: str, killed_at: int | None = None) -> int:
        """The process that runs it, and that SIGKILL ends as its step of that number begins."""
        child = os.fork()
        if child:
            return child
        try:
            with (
                open(os.devnull, "w") as nowhere,
                contextlib.redirect_stdout(nowhere),
                contextlib.redirect_stderr(nowhere),
            ):
                left = iter(range(killed_at or 0))

                def before(row: str, measure: str) -> None:
                    if killed_at is not None and next(left, None) is None:
                        os.kill(os.getpid(), signal.SIGKILL)

                self.before = before
                os._exit(self.typed(*arguments))
        finally:
            os._exit(99)

    @property
    def steps(self) -> Path:
        return self.folder / "steps.txt"

    def taken(self) -> list[tuple[str, str]]:
        lines = self.steps.read_text().splitlines() if self.steps.exists() else []
        return [(row, measure) for row, measure in (line.split() for line in lines)]

    def _take(self, item: Any, device: str, open_data: Any, report: Any) -> dict[str, Any]:
        """In place of `steps.take`."""
        self.before(item.cell.id, item.measure)
        with self.steps.open("a") as told:
            told.write(f"{item.cell.id} {item.measure}\n")
        ratio = item.cell.options["keep_ratio"]
        if item.measure == "complexity":
            return {"common": {"figure": figure("complexity", ratio)}}
        if item.measure == "training":
            trained = figure("training", ratio, item.cell.settings.epochs, self._version("train"))
            item.folder.weights.write_text(str(trained))
            return {"training": {"figure": trained}}
        if item.weights == "trained":
            item.trained_in.check_beside("training")
            weights = int(item.trained_in.weights.read_text())
        else:
            weights = figure("weights", int(Path(item.cell.checkpoint).read_text().split()[1]))
        return {"common": {"figure": figure("accuracy", ratio, weights, self._version("val"))}}

    def _version(self, split: str) -> int:
        """Which data lie there, by their pixels."""
        content = (self.folder / "data" / f"{split}2017" / "1.bmp").read_bytes()
        return next(n for n in range(100) if wholes.picture(32, 32, "bmp", seed=n) == content)

    # -------------------------------------------------------------------------------------------------- what is there

    @property
    def cells(self) -> Path:
        return self.folder / "results" / "demo" / "smoke" / "cells"

    def files(self) -> list[Path]:
        """All that a run has left."""
        return sorted(
            p for p in (self.folder / "results").rglob("*") if p.is_file() and not p.name.startswith(".lock-")
        )

    def planned(self) -> Iterator[tuple[str, str, str, int | None]]:
        """(row, measure, state, figure in its record) of everything, as a plan finds it."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            assert self.typed("--dry-run", "--json") == 0
        (suite,) = json.loads(out.getvalue())["suites"]
        for item in suite["items"]:
            yield item["cell"], item["measure"], item["state"], self._kept(item)

    def _kept(self, item: dict[str, Any]) -> int | None:
        """The figure under the item's key, wherever it lies."""
        for path in sorted(self.cells.glob(f"{item['cell']}-*")):
            envelope = CellFolder(path).read_envelope(item["measure"])
            if envelope and envelope["key"] == item["key"]:
                (record,) = envelope["records"].values()
                return record.get("figure")
        return None
