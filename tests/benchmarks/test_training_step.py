"""The benchmark of training steps prints each part and what waits."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from benchmark_scripts import script
from families import small

script("waits")
training_step = script("training_step")


@pytest.fixture(autouse=True)
def small_detectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        training_step, "detector_of", lambda family, backbone: small(family, training_step.CLASSES).train()
    )


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    arguments = ["--families", "sparse_detr", "--rounds", "1", "--images", "2", "--size", "64x96", *options]
    monkeypatch.setattr(sys, "argv", ["training_step.py", *arguments])
    training_step.main()
    return capsys.readouterr().out


def test_every_part_takes_time_and_every_wait_has_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (cost,) = json.loads(run(monkeypatch, capsys, "--json"))["costs"]
    assert cost["family"] == "sparse_detr"
    assert list(cost["milliseconds"]) == list(training_step.PARTS)
    assert all(cost["milliseconds"][part] > 0 for part in ("forward", "matching", "backward", "optimiser"))
    places = {place.split(" at ")[1].split(":")[0] for place in cost["waits"]}
    assert places == {"models/matcher.py", "models/tokens.py", "detrbench/training/step.py"}
    assert cost["by_image_milliseconds"] > 0
    # Two layers of the decoder, one of the encoder and the proposals, four images each.
    assert cost["by_image_waits"] == 4 * 4


def test_the_table_sums_up(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(
        training_step.Step, "milliseconds", lambda step, device: dict.fromkeys((*training_step.PARTS, "by_image"), 2)
    )
    monkeypatch.setattr(training_step, "waits_by_image", lambda family: 12)
    monkeypatch.setattr(training_step, "waits_of", lambda family: {"nonzero at models/a.py:3": 4, "index at b.py:1": 1})
    lines = run(monkeypatch, capsys, "--places").splitlines()
    assert lines[2].split() == ["sparse_detr", *["2.0"] * 5, "10.0", "5", "2.0", "(12", "waits)"]
    assert lines[3:] == ["    4 nonzero at models/a.py:3", "    1 index at b.py:1"]


@pytest.mark.parametrize("family", ["sparse_detr", "dac_detr"])
def test_matching_image_by_image_finds_what_all_together_find(family: str) -> None:
    step = training_step.Step(small(family, training_step.CLASSES).train(), training_step.made_up_batch(3, 64, 96))
    step.forward()
    asked = step.unmatched()
    by_image = training_step.match_by_image(asked)
    for matched, layers in zip(training_step.match(asked), by_image, strict=True):
        assert [np.concatenate(layer).tolist() for layer in layers] == matched.query[:, :, 0].tolist()
