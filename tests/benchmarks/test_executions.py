"""The benchmark of ways to compute a step prints time and memory of each, against the first."""

from __future__ import annotations

import json
import sys

import pytest
from benchmark_scripts import script
from families import SMALL

from detrbench import models
from detrbench.models.detector import Detector

script("waits")
training_step = script("training_step")
executions = script("executions")


def deep(family: str) -> Detector:
    """Small, but for an encoder that holds more than all else does."""
    options = {**SMALL, "width": 8, "num_encoder_layers": 6, "ffn_dim": 512, "num_classes": training_step.CLASSES}
    return models.create(f"{family}_tiny", **options).train()


def test_each_way_takes_the_steps_that_it_is_named_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(executions, "detector_of", lambda family, _: deep(family))
    arguments = ["--families", "deformable_detr", "--ways", "float32,checkpointed", "--rounds", "1", "--images", "1"]
    monkeypatch.setattr(sys, "argv", ["executions.py", *arguments, "--size", "128x128", "--json"])
    executions.main()
    costs = {cost["way"]: cost for cost in json.loads(capsys.readouterr().out)["costs"]}
    assert list(costs) == ["float32", "checkpointed"]
    assert all(cost["milliseconds"] > 0 for cost in costs.values())
    assert costs["checkpointed"]["peak_mib"] < costs["float32"]["peak_mib"]


def test_shares_are_of_the_first_way_of_a_family() -> None:
    cost = executions.Cost
    lines = executions.table([cost("a", "float32", 10, 40), cost("a", "bf16", 5, 30), cost("b", "float32", 8, 8)])
    assert [line.split() for line in lines[1:]] == [
        ["a", "float32", "10.0", "x", "1.00", "40.0", "x", "1.00"],
        ["a", "bf16", "5.0", "x", "0.50", "30.0", "x", "0.75"],
        ["b", "float32", "8.0", "x", "1.00", "8.0", "x", "1.00"],
    ]


def test_every_option_of_a_recipe_that_changes_no_figure_but_by_rounding_has_a_way() -> None:
    asked = {name for recipe in executions.WAYS.values() for name, value in vars(recipe).items() if value is True}
    assert asked == {"fused_adamw", "channels_last", "activation_checkpointing", "compile"}
