"""Equal cells are counted once, across suites; the others get the record with a note of where it came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detrbench import reuse, steps, yaml12
from detrbench import run as runs
from detrbench import suite as suites
from detrbench.plan import WorkItem
from detrbench.run import Outcome, RunOptions

SUITE = """\
name: {name}
title: A demonstration
variants:
  - {{id: plain, model: deformable_detr_tiny}}
  - {{id: source, model: deformable_detr_r50, options: {{backbone: tiny}}, protocols: [{protocol}]}}
  - {{id: two-stage, model: deformable_detr_two_stage_tiny}}
scales:
  smoke: {{data: shapes, num_train: 8, num_val: 4, image_size: 64, epochs: 1}}
measure: [complexity]
"""


class Silent:
    """A listener that is told and says nothing."""

    def begin(self, items: Any) -> None: ...

    def start(self, item: Any) -> None: ...

    def advance(self, item: Any, fraction: float, text: str, milestone: bool = False) -> None: ...

    def end(self, outcome: Any) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """(suite, cell, protocol) of each count that was really taken."""
    calls: list[tuple[str, str, str]] = []

    def take(item: WorkItem, *rest: Any) -> dict[str, Any]:
        names = [name for name in item.cell.protocols_of("complexity") if name not in item.known]
        calls.extend((item.cell.suite, item.cell.id, name) for name in names)
        return {name: {"gflops": float(len(calls))} for name in names}

    monkeypatch.setattr(steps, "take", take)
    return calls


def run(root: Path, name: str = "first", protocol: str = "lite_table", fresh: bool = False) -> list[Outcome]:
    loaded = suites.read(yaml12.parse(SUITE.format(name=name, protocol=protocol), f"{name}.yaml"))
    return runs.execute(runs.prepare(loaded, RunOptions(results=root, fresh=fresh)), Silent())


def envelope(root: Path, suite: str, cell: str) -> dict[str, Any]:
    (path,) = root.glob(f"{suite}/smoke/cells/{cell}-*/complexity.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_equal_detectors_under_other_names_are_counted_once(tmp_path: Path, counted: list[Any]) -> None:
    outcomes = run(tmp_path)
    assert counted == [
        ("first", "plain", "common"),
        ("first", "source", "lite_table"),
        ("first", "two-stage", "common"),
    ]
    assert [outcome.state for outcome in outcomes] == ["done"] * 3
    same, copy = envelope(tmp_path, "first", "plain"), envelope(tmp_path, "first", "source")
    assert copy["records"]["common"] == same["records"]["common"]
    assert copy["counted_for"] == {"common": f"first/smoke/cells/{suites_folder(tmp_path, 'plain')}"}
    assert same["counted_for"] == {}


def suites_folder(root: Path, cell: str) -> str:
    (path,) = root.glob(f"first/smoke/cells/{cell}-*")
    return path.name


def test_another_suite_takes_what_is_there(tmp_path: Path, counted: list[Any]) -> None:
    run(tmp_path)
    counted.clear()
    outcomes = run(tmp_path, "second", "deformable_table")
    assert counted == [("second", "source", "deformable_table")]
    assert [o.item.state for o in outcomes] == ["reused", "todo", "reused"]
    origin = f"first/smoke/cells/{suites_folder(tmp_path, 'plain')}"
    assert outcomes[0].why == f"counted for {origin}"
    assert envelope(tmp_path, "second", "source")["counted_for"] == {"common": origin}
    assert envelope(tmp_path, "second", "plain")["environment"] == envelope(tmp_path, "first", "plain")["environment"]
    counted.clear()
    run(tmp_path, "second", "deformable_table")
    assert counted == []


def test_fresh_counts_again(tmp_path: Path, counted: list[Any]) -> None:
    run(tmp_path)
    counted.clear()
    run(tmp_path, "second", fresh=True)
    assert len(counted) == 4


def test_a_key_depends_on_detector_and_rule_alone() -> None:
    def keys(name: str, text: str = SUITE) -> dict[str, dict[str, str]]:
        cells = suites.read(yaml12.parse(text.format(name=name, protocol="lite_table"), "x.yaml")).cells("smoke")
        return {cell.id: reuse.count_keys(cell) for cell in cells}

    first = keys("first")
    assert first == keys("second")
    assert first["plain"]["common"] == first["source"]["common"]
    assert len({first["plain"]["common"], first["source"]["lite_table"], first["two-stage"]["common"]}) == 3
