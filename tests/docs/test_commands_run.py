"""Every command of README and pages is typed here, in a folder with what the pages take for granted.

Steps of a run are given figures at once instead of measuring them, and one small count stands for every count; all else
is what a reader gets: plan, records, reports, verdicts, pictures of a real detector, and the exit code. Commands of
your-method.md and your-detector.md are run by tests of their own.
"""

from __future__ import annotations

import functools
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from coco_files import write_coco
from made_results import times
from PIL import Image
from report import report_fixture
from test_commands import PAGES, ROOT, commands

from detrbench import cli, models
from detrbench.data import DataSpec, open_dataset
from detrbench.files import cache_folder
from detrbench.measure import complexity, protocols
from detrbench.run import steps
from detrbench.run.plan import WorkItem
from detrbench.suite import loading as suites
from detrbench.weights import place

pytestmark = pytest.mark.full

OF_THEIR_OWN = ("your-method.md", "your-detector.md")
# This world lacks released files and a cluster: tests/weights/test_fetching.py, tests/cli/test_cli_slurm.py.
ELSEWHERE = ("weights import FILE", "--executor slurm")
# Words of a page, and what is typed here: something of this world's, and small twins of what takes long.
MEANT = {
    "train MODEL": "train sparse_detr_tiny",
    "train sparse_detr_r50": "train sparse_detr_tiny",
    "--model deformable_detr_r50": "--model deformable_detr_tiny",
    "SUITE:ID": "quickstart:sparse-0.3",
    "MODEL": "sparse_detr_r50",
    "--data DIR": "--data /data/cells",
    "validate DIR": "validate /data/cells",
    "validate FILE": "validate my_suite.yaml",
    "suites/yours.yaml": "my_suite.yaml",
    "'suites/*.yaml'": " ".join(f"suites/{name}.yaml" for name in suites.names()),  # the shell's work
    "--jobs 2": "--jobs 1 --results large",  # other processes would not have the steps of this test
}
FIRST = ("weights fetch", "run", "train")  # what makes that which others read


def typed() -> list[str]:
    """Each command once; those that make results come before those that read them."""
    found: dict[str, None] = {}
    for page in PAGES:
        if page.name not in OF_THEIR_OWN:
            found |= {shlex.join(words): None for words in commands(page.read_text(encoding="utf-8"))}

    def when(command: str) -> int:
        return next((i for i, begin in enumerate(FIRST) if command.startswith(begin)), len(FIRST))

    here = [command for command in found if not any(part in command for part in ELSEWHERE)]
    return sorted(here, key=when)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with data sets, a photograph, weights, predictions and a suite of the reader's own."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("coco", "cells"):
        for split in ("train", "val"):
            made = open_dataset(DataSpec("shapes", num_train=6, num_val=4, image_size=64), split)
            write_coco(made, folder / "data" / name, split)
    shutil.copytree(ROOT / "budgets", folder / "budgets")
    (folder / "docs").mkdir()
    for path in ROOT.glob("docs/*.yaml"):
        shutil.copy(path, folder / "docs")
    (suite,) = re.findall(r'title="my_suite.yaml"\n(.*?)^```', (ROOT / "docs/suite-file.md").read_text(), re.M | re.S)
    (folder / "my_suite.yaml").write_text(suite)
    Image.new("RGB", (120, 80), "gray").save(folder / "photo.jpg")
    (folder / "predictions.json").write_text(json.dumps(predicted(folder / "data" / "coco")))
    for name in ("sparse_detr/r50_rho0.1", "sparse_detr/r50_rho0.3"):
        (folder / "weights" / name).mkdir(parents=True)
        (folder / "weights" / name / "here.pth").write_bytes(name.encode())
    for file, model in (
        ("sparse_detr_r50_30.pth", "sparse_detr_tiny"),
        ("r50_deformable_detr.pth", "deformable_detr_tiny"),
    ):
        torch.save({"model": models.create(model).state_dict()}, folder / file)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DETRBENCH_CACHE", str(cache_folder()))  # which has the compiled op, whatever is home
        patch.setenv("HOME", str(folder / "data"))
        patch.setattr(place, "folder", lambda: folder / "weights")
        _replace_what_takes_long(patch)
        yield folder


def predicted(data: Path) -> list[dict[str, Any]]:
    """Every object found."""
    truth = json.loads((data / "annotations" / "instances_val2017.json").read_text())
    return [
        {key: each[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
        for each in truth["annotations"]
    ]


def _replace_what_takes_long(patch: pytest.MonkeyPatch) -> None:
    """Steps have figures at once; a training leaves a detector that nobody trained; everything counts as one does."""
    create = functools.partial(models.create, "sparse_detr_tiny")
    counted = complexity.measure(create, protocols.get("complexity").at(64, 64), cross_check=False)
    patch.setattr(complexity, "measure", lambda *given, **how: counted)
    patch.setattr(steps, "take", take)
    patch.setattr(steps, "load_and_try", lambda *given: object())
    patch.setattr(steps, "take_latency", time_all)


def time_all(ready: dict[str, Any], *given: Any, **how: Any) -> dict[str, Any]:
    """In place of `steps.take_latency`: each is faster than the one before."""
    return {id_: {"common": _timed(20.0 / (i + 1))} for i, id_ in enumerate(ready)}


def _timed(milliseconds: float) -> dict[str, Any]:
    drawn = times(0, milliseconds)
    flat = [value for each in drawn for value in each]
    return {**report_fixture.latency(milliseconds), "samples_ms": flat, "processes": len(drawn), "session": "one"}


def take(item: WorkItem, device: str, open_data: Any, report: Any, *ranks: Any) -> dict[str, Any]:
    """In place of `steps.take`."""
    cell = item.cell
    if item.measure == "training":
        classes = open_data(cell.settings.data_spec, "train").num_classes
        models.save_checkpoint(models.create(cell.model, num_classes=classes, **cell.options), item.folder.weights)
        return {"training": report_fixture.training(40.0)}
    return {
        name: _figures(item.measure, name, cell.options.get("keep_ratio", 1.0))
        for name in cell.protocols_of(item.measure)
    }


def _figures(measure: str, protocol: str, kept: float) -> dict[str, Any]:
    if measure == "accuracy":
        return report_fixture.accuracy(40.0, 200)
    if measure == "complexity":
        return report_fixture.complexity(100 + 90 * kept, protocol)
    own: dict[str, dict[str, Any]] = {
        "dam": {
            "corr": report_fixture.estimate(0.6, "share", 200, 0.01),
            "std": 0.1,
            "per_level": [0.6],
            "kept_fraction": kept,
        },
        "memory": {"forward_mib": 200.0, "training_step_mib": None, "process_peak_mib": 900.0},
    }
    return {"protocol": protocol, "protocol_version": 1, "convention": "of a test", **own.get(measure, {})}


@pytest.mark.parametrize("command", typed())
def test_a_command_of_the_pages_does_what_it_says(
    command: str, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for word, meant in MEANT.items():
        command = command.replace(word, meant)
    words = [word.replace("~/", "/data/").replace("/data/", f"{world}/data/") for word in shlex.split(command)]
    assert cli.main(words) == 0, capsys.readouterr().err
