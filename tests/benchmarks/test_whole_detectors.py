"""The benchmark of whole detectors prints each side against the first, and a bound."""

from __future__ import annotations

import json
import sys

import pytest
from benchmark_scripts import script
from families import small

detectors = script("whole_detectors")


@pytest.fixture(autouse=True)
def small_detectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detectors, "detector", lambda: small("deformable_detr", 5).eval())
    monkeypatch.setattr(detectors, "NAME", "deformable_detr_tiny")
    monkeypatch.setattr(detectors, "PRODUCT", (100, 16, 16))
    options = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    small_ones = {"deformable": ("deformable_detr_tiny", options), "sparse 0.1": ("sparse_detr_tiny", options)}
    monkeypatch.setattr(detectors, "ENCODERS", small_ones)


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    monkeypatch.setattr(sys, "argv", ["whole_detectors.py", "--size", "64x96", "--rounds", "2", *options])
    detectors.main()
    return capsys.readouterr().out


def test_sides_are_held_against_the_first(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run(monkeypatch, capsys, "--sides", "eager,optimised,bfloat16", "--json"))
    assert list(found["sides"]) == ["eager", "optimised", "bfloat16"]
    assert found["sides"]["eager"]["ratio"] == 1
    assert all(0 < side["min"] <= side["median"] for side in found["sides"].values())
    bound = found["bound"]
    assert bound["seconds"] == pytest.approx(bound["gflop"] / bound["gflop_a_second"])
    assert list(found["encoders"]) == ["eager", "optimised"]
    for ratio in found["encoders"].values():
        assert ratio["quotient"] == pytest.approx(ratio["time"] / ratio["multiply-adds"])
    assert found["machine"]["threads"] == 1
    table = run(monkeypatch, capsys, "--sides", "eager")
    assert "eager" in table
    assert "optimised" not in table


def test_ratios_are_those_within_a_round() -> None:
    found = detectors.summary({"slow": [4.0, 6.0, 8.0], "fast": [2.0, 1.0, 4.0]})
    assert found["fast"] == {"min": 1.0, "median": 2.0, "ratio": 2.0}


def test_an_unknown_side_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="got faster"):
        run(monkeypatch, capsys, "--sides", "eager,faster")
