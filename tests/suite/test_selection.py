"""`-k` expressions, as pytest reads them."""

from __future__ import annotations

import pytest

from detrbench.errors import UsageError
from detrbench.suite.selection import compile_expression

IDS = ["sparse-0.1", "sparse-0.5", "dino-sparse-0.1", "focus-0.5", "android"]


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ("sparse", [0, 1, 2]),
        ("SPARSE", [0, 1, 2]),
        ("sparse and not dino", [0, 1]),
        ("sparse and (0.5 or dino)", [1, 2]),
        ("not sparse", [3, 4]),
        ("not not focus or dino", [2, 3]),
        ("focus or sparse and 0.1", [0, 2, 3]),
        ("(sparse)and(0.5)", [1]),
        ("android", [4]),
    ],
)
def test_expressions_select(expression: str, fits: list[int]) -> None:
    matches = compile_expression(expression)
    assert [name for name in IDS if matches(name)] == [IDS[i] for i in fits]


@pytest.mark.parametrize(
    ("expression", "column"), [("", 1), ("and", 1), ("a and", 6), ("(a", 3), ("a b", 3), ("a)", 2), ("not", 4)]
)
def test_mistakes_name_their_column(expression: str, column: int) -> None:
    with pytest.raises(UsageError, match=f"column {column}: expected"):
        compile_expression(expression)


def test_case_does_not_matter_on_either_side() -> None:
    assert compile_expression("SPARSE")("sparse-0.1")
    assert compile_expression("sparse")("Sparse-0.1")
