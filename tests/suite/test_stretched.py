"""Images that become squares, as RT-DETR's: from a suite's scale, and from a model's name, to the transform."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from detrbench import cli, models
from detrbench.cli.source import Source
from detrbench.data.transforms import Eval, Stretch, Train, evaluated
from detrbench.run import steps
from detrbench.run.plan import WorkItem
from detrbench.suite import loading as suites
from detrbench.suite.cells import Cell


def of(cell: Cell) -> WorkItem:
    return cast("WorkItem", SimpleNamespace(cell=cell))


def cell(suite: str, row: str, **overrides: Any) -> Cell:
    (found,) = [cell for cell in suites.load(suite).cells("paper", overrides) if cell.id == row]
    return found


def test_the_papers_scale_says_how_images_are_seen() -> None:
    rt_detr, dino = cell("rt_detr_models", "r50"), cell("all_methods", "dino")
    assert steps._eval(of(rt_detr)) == Stretch(640, 640)
    assert steps._augmentation(of(rt_detr)) == Train.up_to([640], 640, crop=False, stretch=True, distort=True)
    assert steps._eval(of(dino)) == Eval(800, 1333)
    assert not cast("Train", steps._augmentation(of(dino))).distort
    assert steps._counting(rt_detr, "evaluated").inputs.sizes() == {(640, 640): 1}


def test_several_scales_may_be_asked_for() -> None:
    several = cell("rt_detr_models", "r50", train_scales=[480, 640])
    assert steps._augmentation(of(several)) == Train.up_to([480, 640], 640, crop=False, stretch=True, distort=True)


def test_one_side_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = tmp_path / "wrong.yaml"
    suite.write_text(
        "name: wrong\ntitle: Wrong\nvariants:\n  - {id: one, model: rt_detr_r50vd}\n"
        "scales:\n  paper: {data: coco, stretch: true, shortest: 640}\nmeasure: [complexity]\n"
    )
    assert cli.main(["validate", str(suite)]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "stretch: expected shortest and longest to be one side, got 640 and 1333" in told


def test_a_model_by_name_is_shown_images_as_it_was_made_for(tmp_path: Path) -> None:
    for name, transform in (("rt_detr_tiny", Stretch(640, 640)), ("dino_tiny", Eval(800, 1333))):
        torch.manual_seed(0)
        path = tmp_path / f"{name}.safetensors"
        models.save_checkpoint(models.create(name, num_classes=3), path, class_names=["a", "b", "c"])
        assert evaluated(*Source.of(name, str(path), {}, None, tmp_path).size) == transform
