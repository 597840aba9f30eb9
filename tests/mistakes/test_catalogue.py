"""The list of mistakes cannot rot: every snippet is where it should be, and every mistake is one."""

from __future__ import annotations

import ast
from collections import Counter

import pytest
from catalogue import ROOT, Mistake, load

MISTAKES = load()


def test_names_are_distinct() -> None:
    assert [name for name, count in Counter(mistake.id for mistake in MISTAKES).items() if count > 1] == []


def test_the_list_is_long_and_covers_every_area() -> None:
    by_area = Counter(mistake.area for mistake in MISTAKES)
    assert sum(by_area.values()) >= 130
    assert min(by_area.values()) >= 10


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.id)
def test_a_mistake_can_be_made(mistake: Mistake) -> None:
    text = (ROOT / mistake.file).read_text(encoding="utf-8")
    made = mistake.made_in(text)
    assert made != text
    if mistake.file.endswith(".py"):
        assert ast.dump(ast.parse(made)) != ast.dump(ast.parse(text))
    assert mistake.equivalent is None or len(mistake.equivalent) > 20
    assert [name for name in mistake.tests if not (ROOT / name).exists()] == []


def test_a_snippet_that_is_not_there_once_is_refused() -> None:
    mistake = Mistake("m", "area", "file.py", "", "a + b", "a - b", ())
    assert mistake.made_in("c = a + b\n") == "c = a - b\n"
    for text in ("c = a * b\n", "c = a + b\nd = a + b\n"):
        with pytest.raises(ValueError, match=r"m: expected its snippet once in file\.py"):
            mistake.made_in(text)
