"""The stated limits, tried: 10,000 cells in a results folder, a page of 300 rows, 120,000 images.

    python benchmarks/limits.py                                  everything; about ten minutes on two cores
    python benchmarks/limits.py --part cells --cells 1000

Folders and images are made up in a temporary place. Each command runs in a process of its own, which gives the seconds
of its CPU and its highest resident memory: limits are of these, as a clock shows who else is at work too. Exits with 1
where one is passed.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Limit:
    """What a command has to stay within: seconds of CPU, MiB."""

    seconds: float
    mib: float


@dataclass(frozen=True)
class Spent:
    """What a command took: seconds by the clock, seconds of CPU, MiB."""

    clock: float
    cpu: float
    mib: float


# By command, for 10,000 cells; docs/robustness.md states them.
CELLS = {
    "run suites/*.yaml --dry-run": Limit(120, 2048),
    "list results": Limit(120, 2048),
    "check suites/many_0.yaml": Limit(60, 2048),
    "compare results/ results/": Limit(240, 6144),
    "report --format csv -o figures.csv": Limit(240, 6144),
    "report -o report.html": Limit(240, 6144),
}
PAGE = Limit(1.0, 1024)  # seconds until a page of 300 rows is loaded
IMAGES = Limit(300, 400)


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


def spend(command: str, folder: Path) -> Spent:
    """Runs a command of detrbench in a folder; raises SystemExit where it fails."""
    arguments = [name for word in shlex.split(command) for name in (sorted(glob.glob(word, root_dir=folder)) or [word])]
    began = time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "detrbench", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 6):
            said.seek(0)
            raise SystemExit(f"detrbench {command}: exit code {process.returncode}: {said.read().decode()[-500:]}")
    return Spent(time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def within(what: str, spent: Spent, limit: Limit, share: float = 1.0) -> bool:
    """Prints what a command took beside its limit, of which a smaller folder gets a share; whether it holds."""
    seconds = max(limit.seconds * share, 30.0)
    holds = spent.cpu <= seconds and spent.mib <= limit.mib
    print(
        f"{what:40s} {spent.cpu:7.1f} s of CPU (at most {seconds:.0f}), {spent.clock:7.1f} s by the clock, "
        f"{spent.mib:6.0f} MiB (at most {limit.mib:.0f}){'' if holds else '  PASSED'}",
        flush=True,
    )
    return holds


def try_cells(folder: Path, number: int) -> bool:
    """All commands that read a results folder, on one of so many cells."""
    make_results(folder / "results", make_suites(folder / "suites", number))
    share = number / 10_000
    held = [within(command, spend(command, folder), limit, share) for command, limit in CELLS.items()]
    return all(held)


def try_page(folder: Path, rows: int = 300) -> bool:
    """How long Chromium takes for a page of one suite with so many rows, from its address to its load event."""
    make_results(folder / "results", make_suites(folder / "suites", rows))
    spend("report -o report.html", folder)
    seconds = seconds_to_load(folder / "report.html")
    size = (folder / "report.html").stat().st_size / 2**20
    print(f"a page of {rows} rows, {size:.1f} MiB: loaded after {seconds:.2f} s (at most {PAGE.seconds:g})", flush=True)
    return seconds <= PAGE.seconds


def seconds_to_load(page: Path) -> float:
    """Seconds from an address to the load event, as the browser has them: the best of three."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        raise SystemExit("no chromium on this machine (Debian: apt-get install chromium)")
    # The page runs no script but its own, so a frame around it asks.
    probe = page.with_name("probe.html")
    probe.write_text(
        f"<body><script>const began = performance.now(); const frame = document.createElement('iframe');"
        f"frame.onload = () => document.body.append(`loaded ${{performance.now() - began}} ms`);"
        f"frame.src = '{page.name}'; document.body.append(frame);</script>"
    )
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--allow-file-access-from-files"]
    found = []
    for _ in range(3):
        dumped = subprocess.run(
            [browser, *flags, "--dump-dom", probe.as_uri()], capture_output=True, text=True, check=False, timeout=120
        )
        found += [float(ms) / 1000 for ms in re.findall(r"loaded ([\d.]+) ms", dumped.stdout)]
    if not found:
        raise SystemExit(f"{browser} did not load the page: {dumped.stderr[-300:]}")
    return min(found)


def try_images(folder: Path, number: int) -> bool:
    """`validate` on so many images, every one decoded."""
    make_images(folder / "data", number)
    return within(f"validate data, {number:,} images", spend("validate data", folder), IMAGES, number / 120_000)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("cells", "page", "images"), help="only this one")
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=120_000)
    given = parser.parse_args()
    parts = {
        "cells": lambda folder: try_cells(folder, given.cells),
        "page": try_page,
        "images": lambda folder: try_images(folder, given.images),
    }
    held = []
    for name, part in parts.items():
        if given.part in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                held.append(part(Path(folder)))
    return int(not all(held))


if __name__ == "__main__":
    sys.exit(main())
