"""The benchmark of training steps prints each part and what waits."""

from __future__ import annotations

import json
import sys

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


def test_the_table_sums_up(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(training_step.Step, "milliseconds", lambda step, device: dict.fromkeys(training_step.PARTS, 2))
    monkeypatch.setattr(training_step, "waits_of", lambda family: {"nonzero at models/a.py:3": 4, "index at b.py:1": 1})
    lines = run(monkeypatch, capsys, "--places").splitlines()
    assert lines[2].split() == ["sparse_detr", *["2.0"] * 5, "10.0", "5"]
    assert lines[3:] == ["    4 nonzero at models/a.py:3", "    1 index at b.py:1"]
