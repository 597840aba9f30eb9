"""Counts that are kept: the same record without counting, and never one that is damaged or of something else."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from detrbench import models
from detrbench.measure import complexity, counting, protocols
from detrbench.models import parts
from detrbench.models.parts import Part

RULE = protocols.get("complexity").at(64, 96)
TINY = ("sparse_detr_tiny", {"keep_ratio": 0.2})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(counting, "_folder", lambda: tmp_path / "counts")
    return tmp_path / "counts"


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The protocols that were really counted under."""
    names: list[str] = []
    real = complexity.measure

    def measure(create: Any, protocol: Any, cross_check: bool) -> Any:
        names.append(protocol.name)
        return real(create, protocol, cross_check)

    monkeypatch.setattr(complexity, "measure", measure)
    return names


def test_what_is_kept_is_what_was_counted(folder: Path, taken: list[str]) -> None:
    for cross_check in (False, True):
        first, second = (counting.count(*TINY, RULE, cross_check) for _ in range(2))
        assert first == second
        assert bool(first.cross_check) == cross_check
    assert len(taken) == 2
    assert counting.count(*TINY, RULE, anew=True) == counting.count(*TINY, RULE)
    assert len(taken) == 3


def test_another_detector_or_rule_is_another_count(folder: Path, taken: list[str]) -> None:
    asked: list[tuple[str, dict[str, Any], Any]] = [
        (*TINY, RULE),
        ("sparse_detr_tiny", {"keep_ratio": 0.3}, RULE),
        ("focus_detr_tiny", {}, RULE),
        (*TINY, RULE.at(96, 64)),
        (*TINY, replace(RULE, version=99)),
        (*TINY, replace(RULE, outputs="all")),
        (*TINY, replace(RULE, rule=protocols.get("complexity", "focus_table").rule)),
        (*TINY, replace(RULE, overrides={"num_queries": 7})),
    ]
    found = [counting.count(*each) for each in asked]
    assert [counting.count(*each) for each in asked] == found
    assert len(taken) == len(asked)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _change(path: Path) -> None:
    path.write_text(path.read_text().replace('"weight": 1', '"weight": 2'))


def _of_another_version(path: Path) -> None:
    path.write_text("{}")


@pytest.mark.parametrize("damage", [_cut, _change, _of_another_version, Path.unlink])
def test_what_is_damaged_is_counted_again(folder: Path, taken: list[str], damage: Callable[[Path], None]) -> None:
    first = counting.count(*TINY, RULE)
    (path,) = folder.glob("*/*.json")
    kept = path.read_bytes()
    damage(path)
    assert counting.count(*TINY, RULE) == first
    assert len(taken) == 2
    assert path.read_bytes() == kept


def test_a_folder_that_cannot_be_written_is_done_without(folder: Path, taken: list[str]) -> None:
    folder.write_text("a file where the folder should be")
    assert counting.count(*TINY, RULE) == counting.count(*TINY, RULE)
    assert len(taken) == 2


def test_a_change_of_the_code_forgets_what_was_counted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("measure", "models"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "code.py").write_text("one = 1\n")
    monkeypatch.setattr(counting.detrbench, "__file__", str(tmp_path / "__init__.py"))
    found = [counting._sources.__wrapped__()]
    for name in ("measure", "models"):
        (tmp_path / name / "code.py").write_text("two = 2\n")
        found.append(counting._sources.__wrapped__())
    monkeypatch.setattr(counting, "version", lambda package: "99")
    found.append(counting._sources.__wrapped__())
    assert len(set(found)) == 4


@pytest.mark.parametrize("by_name", [False, True])
def test_parts_of_others_are_counted_each_time(
    by_name: bool, folder: Path, taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = parts.get_part("encoder", "deformable").load()
    monkeypatch.setitem(sys.modules, "of_others", SimpleNamespace(Encoder=given))
    theirs = Part("encoder", "mine", "of_others:Encoder" if by_name else given, "")
    monkeypatch.setitem(parts._PARTS, ("encoder", "mine"), theirs)
    for _ in range(2):
        counting.count("deformable_detr_tiny", {"encoder": "mine"}, RULE)
    assert len(taken) == 2
    assert not folder.exists()


def test_only_the_newest_states_of_the_code_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        monkeypatch.setattr(counting, "_sources", lambda number=number: f"state{number}")
        counting.count(*TINY, RULE)
        os.utime(folder / f"state{number}", (number, number))
    assert sorted(path.name for path in folder.iterdir()) == ["state2", "state3", "state4", "state5"]


def test_a_wrong_name_or_option_is_told_before_anything_is_looked_up(folder: Path) -> None:
    for name, options in (("no_such_detr", {}), ("sparse_detr_tiny", {"no_such_option": 1})):
        with pytest.raises(models.UsageError):
            counting.count(name, options, RULE)
