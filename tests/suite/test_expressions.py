from __future__ import annotations

import pytest

from detrbench.compare.quantities import QUANTITIES
from detrbench.suite.expressions import Bound, ExpressionError, Term, parse


@pytest.mark.parametrize(
    ("text", "term", "operator", "bound"),
    [
        ("ap >= 45.2", Term(QUANTITIES["ap"]), ">=", Bound(None, offset=45.2)),
        ("corr>=-1e-1", Term(QUANTITIES["corr"]), ">=", Bound(None, offset=-0.1)),
        ("gflops == baseline", Term(QUANTITIES["gflops"]), "==", Bound("baseline")),
        ("ap >= baseline - 0.3", Term(QUANTITIES["ap"]), ">=", Bound("baseline", 1.0, -0.3)),
        ("latency <= 1.05 x baseline", Term(QUANTITIES["latency"]), "<=", Bound("baseline", 1.05)),
        ("latency_ms<=1.05*baseline", Term(QUANTITIES["latency"]), "<=", Bound("baseline", 1.05)),
        (
            "latency[batch4](sparse-0.3) <= 0.75x latency(deformable)",
            Term(QUANTITIES["latency"], "sparse-0.3", "batch4"),
            "<=",
            Bound(Term(QUANTITIES["latency"], "deformable"), 0.75),
        ),
        ("ap(a*) >= ap(b, c) + 1", Term(QUANTITIES["ap"], "a*"), ">=", Bound(Term(QUANTITIES["ap"], "b, c"), 1.0, 1.0)),
    ],
)
def test_expressions(text: str, term: Term, operator: str, bound: Bound) -> None:
    found = parse(text)
    assert (found.term, found.operator, found.bound, found.text) == (term, operator, bound, text)


@pytest.mark.parametrize(
    ("text", "column", "problem"),
    [
        ("", 1, "expected a figure"),
        ("fps <= 3", 1, "unknown figure 'fps'"),
        ("ap > 3", 4, "expected <=, >= or ==, got '>'"),
        ("ap == 3", 4, "measured with noise"),
        ("ap >=", 6, "expected a number, `baseline` or a figure, got the end"),
        ("ap >= baselin", 7, "unknown figure 'baselin'"),
        ("ap >= baseline -", 17, "expected a number, got the end"),
        ("ap >= 3 4", 9, "expected the end, got '4'"),
        ("ap() >= 3", 4, "expected a cell's id"),
        ("latency[nope] <= 3", 9, "unknown latency protocol 'nope'"),
        ("latency <= latency(a*)", 12, "expected one cell"),
        ("latency <= latency", 12, "expected one cell"),
        ("latency <= 2 x ap(b)", 16, "expected latency on both sides, got ap"),
        ("latency <= baseline + 3", 21, "compared by ratio"),
        ("ap ; 3", 4, "expected <=, >= or ==, got ';'"),
    ],
)
def test_mistakes_have_a_column(text: str, column: int, problem: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert problem in caught.value.message
    assert caught.value.column == column
