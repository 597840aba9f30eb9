"""Equal cells are counted, trained and evaluated once, across suites; the others get the record and say from where."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from listeners import Silent

from detrbench import yaml12
from detrbench.files import write_atomic
from detrbench.results.folder import CellFolder
from detrbench.run import execute as runs
from detrbench.run import reuse, steps
from detrbench.run.plan import WorkItem
from detrbench.run.work import Outcome, RunOptions
from detrbench.suite import loading as suites

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
        ("first", "plain", "evaluated"),
        ("first", "source", "lite_table"),
        ("first", "two-stage", "common"),
        ("first", "two-stage", "evaluated"),
    ]
    assert [outcome.state for outcome in outcomes] == ["done"] * 3
    same, copy = envelope(tmp_path, "first", "plain"), envelope(tmp_path, "first", "source")
    assert copy["records"]["common"] == same["records"]["common"]
    origin = f"first/smoke/cells/{suites_folder(tmp_path, 'plain')}"
    assert copy["counted_for"] == {"common": origin, "evaluated": origin}
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
    assert envelope(tmp_path, "second", "source")["counted_for"] == {"common": origin, "evaluated": origin}
    assert envelope(tmp_path, "second", "plain")["environment"] == envelope(tmp_path, "first", "plain")["environment"]
    counted.clear()
    run(tmp_path, "second", "deformable_table")
    assert counted == []


def test_fresh_counts_again(tmp_path: Path, counted: list[Any]) -> None:
    run(tmp_path)
    counted.clear()
    run(tmp_path, "second", fresh=True)
    assert len(counted) == 7


def test_a_key_depends_on_detector_and_rule_alone() -> None:
    def keys(name: str, text: str = SUITE) -> dict[str, dict[str, str]]:
        cells = suites.read(yaml12.parse(text.format(name=name, protocol="lite_table"), "x.yaml")).cells("smoke")
        return {cell.id: reuse.count_keys(cell) for cell in cells}

    first = keys("first")
    assert first == keys("second")
    assert first["plain"]["common"] == first["source"]["common"]
    assert len({first["plain"]["common"], first["source"]["lite_table"], first["two-stage"]["common"]}) == 3


TRAINED = """\
name: {name}
title: A demonstration
variants:
  - {{id: sparse, model: sparse_detr_tiny, options: {options}}}
scales:
  smoke: {{data: shapes, num_train: 8, num_val: 4, image_size: 64, epochs: {epochs}}}
measure: [accuracy, pictures, memory]
"""


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(suite, measure) of each step that was really taken; each leaves what the real one leaves."""
    calls: list[tuple[str, str]] = []

    def take(item: WorkItem, *rest: Any) -> dict[str, Any]:
        calls.append((item.cell.suite, item.measure))
        for path in item.folder.beside(item.measure):
            write_atomic(path, f"{item.measure} of {item.cell.suite}")
        return {"common": {"figure": float(len(calls))}}

    monkeypatch.setattr(steps, "take", take)
    return calls


def train(root: Path, name: str, options: str = "{}", epochs: int = 1, fresh: bool = False) -> list[Outcome]:
    loaded = suites.read(yaml12.parse(TRAINED.format(name=name, options=options, epochs=epochs), f"{name}.yaml"))
    return runs.execute(runs.prepare(loaded, RunOptions(results=root, fresh=fresh)), Silent())


def only(root: Path, suite: str) -> CellFolder:
    (path,) = root.glob(f"{suite}/smoke/cells/*")
    return CellFolder(path)


@pytest.mark.parametrize("options", ["{}", "{keep_ratio: 0.3}"])  # the model's default, unsaid and said
def test_what_was_trained_in_one_suite_is_not_trained_in_the_next(
    tmp_path: Path, taken: list[Any], options: str
) -> None:
    train(tmp_path, "first")
    assert [measure for _, measure in taken] == ["training", "accuracy", "pictures", "memory"]
    taken.clear()
    outcomes = train(tmp_path, "second", options)
    assert taken == [("second", "memory")]  # what the machine shows is measured again
    first, second = only(tmp_path, "first"), only(tmp_path, "second")
    origin = first.path.relative_to(tmp_path).as_posix()
    assert [outcome.why for outcome in outcomes] == [*[f"taken for {origin}"] * 3, None]
    assert [outcome.item.state for outcome in outcomes] == ["reused", "reused", "reused", "todo"]
    for measure in ("training", "accuracy", "pictures"):
        theirs, ours = first.read_envelope(measure), second.read_envelope(measure)
        assert theirs is not None
        assert ours is not None
        assert (ours["records"], ours["environment"]) == (theirs["records"], theirs["environment"])
        assert ours["taken_for"] == origin
        for path in second.beside(measure):
            assert path.read_text() == f"{measure} of first"
    taken.clear()
    third = train(tmp_path, "third")
    assert {outcome.why for outcome in third[:3]} == {f"taken for {origin}"}  # the first, not the second, took it


@pytest.mark.parametrize("change", [{"options": "{keep_ratio: 0.1}"}, {"epochs": 2}, {"fresh": True}])
def test_what_differs_is_trained(tmp_path: Path, taken: list[Any], change: dict[str, Any]) -> None:
    train(tmp_path, "first")
    taken.clear()
    train(tmp_path, "second", **change)
    assert [measure for _, measure in taken] == ["training", "accuracy", "pictures", "memory"]


def test_a_record_without_its_file_is_not_taken_over(tmp_path: Path, taken: list[Any]) -> None:
    train(tmp_path, "first")
    only(tmp_path, "first").weights.unlink()
    taken.clear()
    train(tmp_path, "second")
    assert taken == [("second", "training"), ("second", "memory")]


def test_a_file_taken_over_stays_when_its_origin_is_measured_again(tmp_path: Path, taken: list[Any]) -> None:
    train(tmp_path, "first")
    train(tmp_path, "second")
    shutil.rmtree(tmp_path / "first")
    assert only(tmp_path, "second").weights.read_text() == "training of first"


def test_another_disk_gets_a_copy(tmp_path: Path, taken: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*names: Any) -> None:
        raise OSError(errno.EXDEV, "another disk")

    train(tmp_path, "first")
    monkeypatch.setattr(os, "link", no_links)
    train(tmp_path, "second")
    assert only(tmp_path, "second").weights.read_text() == "training of first"
    assert [path.name for path in only(tmp_path, "second").checkpoint.iterdir() if path.name.startswith(".")] == []
