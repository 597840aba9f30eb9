"""Keys of records: whatever a figure depends on changes its key."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from detrbench import plan, yaml12
from detrbench import suite as suites
from detrbench.measure import protocols
from detrbench.results import ResultsStore
from detrbench.reuse import BY_KEY, count_keys
from detrbench.suite import Cell

SUITE = """\
name: demo
title: A demonstration
variants:
  - {{id: one, model: sparse_detr_tiny, options: {options}}}
scales:
  smoke: {{data: shapes, num_train: 8, num_val: 4, image_size: 64, epochs: 1{settings}}}
"""
MACHINE = {"cpu": "A CPU", "cores": 2, "threads": 2}


def cell(options: str = "{}", settings: str = "") -> Cell:
    text = SUITE.format(options=options, settings=settings)
    (found,) = suites.read(yaml12.parse(text, "demo.yaml")).cells("smoke")
    return found


def key(measure: str, of: Cell, data: str = "data", device: str = "cpu", machine: Any = MACHINE) -> str:
    now = plan.Conditions(
        lambda cell, split: f"{data} {split}", lambda cell, split: 4, machine, device, frozenset({"sparse_detr_tiny"})
    )
    items = plan.make([of], [measure], ResultsStore(Path("nowhere")), now)
    return next(item.key for item in items if item.measure == measure)


def newer(monkeypatch: pytest.MonkeyPatch, measure: str) -> None:
    rules = protocols.ALL[measure]
    monkeypatch.setitem(rules, "common", dataclasses.replace(rules["common"], version=99))  # type: ignore[arg-type]


def test_counts_depend_on_the_detector_and_the_version_of_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    first = count_keys(cell())["common"]
    assert count_keys(cell(settings=", seed: 3"))["common"] == first
    assert count_keys(cell("{keep_ratio: 0.2}"))["common"] != first
    newer(monkeypatch, "complexity")
    assert count_keys(cell())["common"] != first


@pytest.mark.parametrize("measure", ["accuracy", "dam", "latency"])
def test_figures_depend_on_the_detector_its_weights_the_size_and_the_rule(
    monkeypatch: pytest.MonkeyPatch, measure: str
) -> None:
    first = key(measure, cell())
    assert key(measure, cell()) == first
    assert key(measure, cell("{keep_ratio: 0.2}")) != first
    assert key(measure, cell(settings=", shortest: 48")) != first
    if measure != "latency":
        assert key(measure, cell(settings=", lr: 0.5")) != first
        assert key(measure, cell(), data="other") != first
    else:
        assert key(measure, cell(), device="cuda") != first
        assert key(measure, cell(), machine=MACHINE | {"threads": 1}) != first
    newer(monkeypatch, measure)
    assert key(measure, cell()) != first


def test_the_size_of_a_timing_is_part_of_its_key_though_nothing_is_trained() -> None:
    assert key("latency", cell(settings=", longest: 80")) != key("latency", cell())


def test_timings_are_never_taken_over() -> None:
    assert not set(BY_KEY) & set(plan.TIMED)
