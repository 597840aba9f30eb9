"""The list of mistakes cannot rot: every snippet is where it should be, and every mistake is one."""

from __future__ import annotations

import ast
import functools
from collections import Counter

import pytest
from catalogue import ROOT, Mistake, load

MISTAKES = load()
AREAS = Counter(mistake.area for mistake in MISTAKES)


@functools.cache
def text_of(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


def problem_of(mistake: Mistake) -> str | None:
    """Why a mistake cannot be made, or would be no mistake."""
    try:
        made = mistake.made_in(text_of(mistake.file))
        if mistake.file.endswith(".py"):
            ast.parse(made)
    except (ValueError, OSError) as error:
        return str(error)
    except SyntaxError as error:
        return f"{mistake.id}: {mistake.file} would not be Python: {error}"
    missing = [name for name in mistake.tests if not (ROOT / name).exists()]
    return f"{mistake.id}: no such tests: {missing}" if missing else None


@pytest.mark.parametrize("area", AREAS)
def test_every_mistake_of_an_area_can_be_made(area: str) -> None:
    assert [problem for m in MISTAKES if m.area == area and (problem := problem_of(m))] == []


def test_names_are_distinct_and_every_mistake_says_what_it_means() -> None:
    assert [name for name, count in Counter(mistake.id for mistake in MISTAKES).items() if count > 1] == []
    assert [m.id for m in MISTAKES if not m.means or m.was == m.now or not m.tests] == []
    assert [m.id for m in MISTAKES if m.equivalent is not None and len(m.equivalent) < 30] == []


def test_the_list_is_long_and_covers_every_area() -> None:
    assert sum(AREAS.values()) >= 130
    assert min(AREAS.values()) >= 10


def test_a_snippet_that_is_not_there_once_is_refused() -> None:
    mistake = Mistake("m", "area", "file.py", "", "a + b", "a - b", ())
    assert mistake.made_in("c = a + b\n") == "c = a - b\n"
    for text in ("c = a * b\n", "c = a + b\nd = a + b\n"):
        with pytest.raises(ValueError, match=r"m: expected its snippet once in file\.py"):
            mistake.made_in(text)
