"""Small rules of the report, each held alone: what shares a base, which letters notes get, which points are named."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from detrbench.compare.differences import Difference
from detrbench.compare.quantities import QUANTITIES
from detrbench.compare.verdicts import verdict_on
from detrbench.published import PublishedRow
from detrbench.report import findings, pairs, tables
from detrbench.report.columns import Column, TableCell
from detrbench.report.entries import Entry
from detrbench.report.sections import Section
from detrbench.results.store import CellResult
from detrbench.statistics import Evidence


def entry(id_: str, model: str = "deformable_detr_r50", measured: bool = False) -> Entry:
    cell = {"id": id_, "model": model, "options": {}, "complexity_options": {}}
    records = {"complexity": {"common": {"gflops": 1.0}}} if measured else {}
    return Entry(id_, id_, None, CellResult(id_, "demo", "smoke", Path("nowhere"), cell, {}, records))


def section(*entries: Entry) -> Section:
    return Section("demo", "smoke", {"title": "A demonstration"}, None, list(entries))


def test_a_base_is_a_decoder_behind_a_backbone() -> None:
    assert pairs.base(entry("a")) == ("deformable", "resnet50")
    assert pairs.base(entry("a", "deformable_detr_r101")) == ("deformable", "resnet101")
    assert pairs.base(entry("a", "dino_r50")) == ("dino", "resnet50")
    assert pairs.base(entry("a", "nobody_knows_it")) is None


def test_each_note_has_a_letter_of_its_own_and_equal_notes_share_one() -> None:
    said = {"one": "first", "two": "second", "three": "first"}
    column = Column("x", "", "x", lambda e: TableCell("1", "published", 1.0, note=said[e.id]))
    table = tables.fill("detail", "", section(*map(entry, said)), [column], [entry(id_) for id_ in said])
    assert table.notes == {"first": "a", "second": "b"}


@pytest.mark.parametrize(("kind", "folds"), [("measured", True), ("published", False)])
def test_only_what_was_measured_is_folded_where_it_never_differs(kind: str, folds: bool) -> None:
    rows = [entry("one", measured=True), entry("two", measured=True)]
    column = Column("x", "Group", "x", lambda e: TableCell("1", kind, 1.0))
    table = tables.fill("main", "", section(*rows), [column], rows)
    assert table.columns == (() if folds else (column,))
    assert table.folded == ((("Group, x", "1"),) if folds else ())


def test_what_cannot_be_compared_has_no_verdict() -> None:
    clear = Evidence(-5.0, 0.1)
    assert verdict_on(Difference(clear), QUANTITIES["ap"]) == "worse"
    assert verdict_on(Difference(clear, ("not the same protocol",), comparable=False), QUANTITIES["ap"]) == "unclear"


def test_ratios_are_held_against_one_and_differences_against_zero() -> None:
    assert verdict_on(Difference(Evidence(0.8, 0.01, log=True)), QUANTITIES["latency"]) == "better"
    assert verdict_on(Difference(Evidence(1.2, 0.01, log=True)), QUANTITIES["latency"]) == "worse"
    assert verdict_on(Difference(Evidence(0.8, 0.1)), QUANTITIES["ap"]) == "better"
    assert verdict_on(Difference(Evidence(1.0, math.inf, log=True)), QUANTITIES["latency"]) == "unclear"


def test_published_gflops_are_met_within_half_a_percent() -> None:
    rows = []
    for index, ours in enumerate((100.4, 100.6, 99.5)):
        id_ = f"row{index}"
        cell = {"id": id_, "model": "dino_r50", "protocols": ["focus_table"]}
        records = {"complexity": {"focus_table": {"gflops": ours}, "common": {"gflops": 150.0}}}
        result = CellResult(id_, "demo", "smoke", Path("nowhere"), cell, {}, records)
        rows.append(Entry(id_, id_, PublishedRow(index, {"gflops": 100}, "focus_detr/table6"), result))
    (fact, *_) = findings.about(section(*rows)).facts
    assert str(fact).startswith("Published GFLOPs: met within 0.5 % by 2 of 3 rows")
    assert "largest difference is +0.6 % (row1)" in str(fact)
