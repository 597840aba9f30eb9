"""The papers' figures as data: they load, carry a source, and a selector finds one row or says what it could have."""

from __future__ import annotations

import re

import pytest

from detrbench import published, published_counts
from detrbench.errors import SuiteError, UsageError
from detrbench.report import labels

TABLES = [table for paper in published.papers() for table in published.tables_of(paper).values()]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.reference)
def test_tables_are_complete(table: published.PublishedTable) -> None:
    assert table.source
    assert table.caption
    assert table.rows
    for row in table.rows:
        assert set(row.values) <= set(table.columns), row
        assert set(row.doubtful) | set(row.not_reproduced) <= set(table.columns), row
        assert set(row.difference_percent) <= set(row.doubtful) | set(row.not_reproduced), row
        assert all(abs(difference) >= published_counts.TOLERANCE for difference in row.difference_percent.values()), row
        for column in set(row.values) & labels.FIGURES:
            value = row.values[column]
            assert value is None or isinstance(value, int | float), (column, value)
        ap = row.values.get("AP")
        assert ap is None or 20 < ap < 70


@pytest.mark.parametrize(
    ("reference", "selector", "figures"),
    [
        ("sparse_detr/readme_main", {"model": "Sparse DETR", "backbone": "R50", "keep_ratio": 0.1}, {"gflops": 105.4}),
        ("sparse_detr/table1", {"backbone": "R50", "model": "Deformable DETR", "topk_bbr": True}, {"gflops": 177}),
        ("focus_detr/table6", {"model": "Focus-DETR (DINO)", "keep_ratio": 0.3}, {"AP": 50.4, "gflops": 154}),
        ("deformable_detr/readme_main", {"model": "Deformable DETR ++ two-stage"}, {"AP": 46.9, "fps": 14.5}),
        ("focus_detr/table7", {"keep_ratio": 0.3}, {"layer_ratios": [0.5, 0.4, 0.3, 0.3, 0.2, 0.1]}),
    ],
)
def test_selects_one_row(reference: str, selector: dict[str, object], figures: dict[str, object]) -> None:
    row = published.load(reference).select(selector)
    assert {key: row.values[key] for key in figures} == figures


@pytest.mark.parametrize(
    ("selector", "message", "hint"),
    [
        ({"model": "Sparse DETR"}, "fits 5 rows", "keep_ratio: 0.5"),
        ({"model": "Sparse DETR", "keep_ratio": 0.7}, "fits 0 rows", "keep_ratio: 0.1"),
        ({"modle": "Sparse DETR"}, "no column 'modle'", "model"),
    ],
)
def test_a_selector_that_fails_names_candidates(selector: dict[str, object], message: str, hint: str) -> None:
    with pytest.raises(SuiteError, match=re.escape(message)) as caught:
        published.load("focus_detr/table6").select(selector)
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("reference", "known"), [("focus_detr", "paper/table"), ("focus/table6", "focus_detr"), ("focus_detr/x", "table6")]
)
def test_unknown_references(reference: str, known: str) -> None:
    with pytest.raises(UsageError) as caught:
        published.load(reference)
    assert known in f"{caught.value.message} {caught.value.hint}"


def test_doubtful_cells_are_marked() -> None:
    row = published.load("focus_detr/table6").select({"model": "Sparse DETR", "keep_ratio": 0.1})
    assert row.values["gflops"] == 105
    assert "illegible" in row.doubtful["gflops"]


def test_a_tables_reason_holds_for_the_rows_that_have_the_figure() -> None:
    table = published.load("lite_detr/table3")
    lite = table.select({"model": "Lite-Deformable DETR H3L1-(2+1)x3"})
    assert set(lite.not_reproduced) == {"gflops", "encoder_gflops"}
    assert set(table.select({"model": "Efficient DETR"}).not_reproduced) == {"encoder_gflops"}
    assert not published.load("lite_detr/table4").select({"model": "YOLOv5-X"}).not_reproduced


def test_figure_7_repeats_other_tables() -> None:
    """Its points have the figures and flags of Tables 6, 1 and 2."""
    columns = ("model", "backbone", "epochs", "AP", "gflops")

    def lines(row: published.PublishedRow) -> tuple[object, ...]:
        return (*(row.values[key] for key in columns), row.doubtful.get("gflops"), row.difference_percent.get("gflops"))

    tables = [published.load(f"focus_detr/{name}") for name in ("table6", "table1", "table2")]
    known = {lines(row) for table in tables for row in table.rows}
    assert {lines(row) for row in published.load("focus_detr/figure7").rows} <= known
