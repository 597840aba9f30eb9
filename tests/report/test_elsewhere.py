"""Rows of detectors from elsewhere in a report: what they are called, what stands beside them, and against what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from report.report_fixture import complexity

from detrbench.report import page, pairs, sections, tables
from detrbench.report.sections import Section
from detrbench.results.store import CellResult


def row(cell: str, gflops: float, native: float, **described: Any) -> CellResult:
    records = {"complexity": {"common": complexity(gflops, "common"), "native": complexity(native, "native")}}
    described = {"id": cell, "model": "external", "options": {"num_labels": 80}, **described}
    return CellResult(cell, "peers", "paper", Path(), described, {}, records)


def section() -> Section:
    backbone: dict[str, Any] = {"options": {"source": "transformers"}}
    return sections.section_of(
        "peers",
        "paper",
        {"title": "Peers", "measure": ["complexity"]},
        [
            row("fine", 103.0, 48.0, source="hf:d_fine", published="d_fine/readme_coco", row={"model": "D-FINE-L"}),
            row("ours", 174.0, 174.0, model="deformable_detr_r50", **backbone),
            row("mine", 20.0, 9.0, source="factory:lib.models:build", options={"width": {"deep": 3}}),
            row("rcnn", 185.0, 185.0, source="torchvision:x", published="torchvision/detection", row={"model": "FCOS"}),
        ],
    )


def test_each_row_answers_to_its_own_table() -> None:
    found = section()
    assert [table.reference for table in found.tables] == ["d_fine/readme_coco", "torchvision/detection"]
    figures = {entry.id: entry.published and entry.published.values["AP"] for entry in found.entries}
    assert figures == {"fine": 54.0, "ours": None, "mine": None, "rcnn": 39.2}
    assert not found.problems


def test_the_table_says_where_they_are_from_and_shows_both_sizes() -> None:
    found = tables.main_table(section())
    columns = {column.key: column for column in found.columns}
    assert "num_labels" not in columns  # options of foreign builders are no columns
    assert "source" not in columns
    assert not found.switches  # there is no paper's table beside which ours would have to be switched on
    shown = {row.id: dict(zip(columns, (cell.text for cell in row.cells))) for row in found.rows}
    assert shown["fine"]["origin"] == "hf:d_fine"
    assert (shown["fine"]["gflops.common"], shown["fine"]["gflops.native"]) == ("103.0", "48.0")
    assert shown["fine"]["gflops.published"] == "91"
    assert shown["ours"]["origin"] == "–"
    assert [row.name for row in found.rows] == ["D-FINE-L", "Deformable DETR", "mine", "FCOS"]


def test_a_suite_whose_chart_is_not_at_the_head_of_the_page_shows_it() -> None:
    written = page.render([section()])
    assert "no other point has more AP for fewer GFLOPs" not in written  # too few of them are known to have a headline
    assert written.count(">AP against GFLOPs<") == 1


def test_they_stand_against_the_dense_detector_of_ours() -> None:
    found = section()
    assert [(new.id, old.id) for new, old in pairs.worth_comparing(found)] == [
        ("fine", "ours"),
        ("mine", "ours"),
        ("rcnn", "ours"),
    ]
    names = [entry.identity.name for entry in found.entries]
    assert names == ["D-FINE-L (transformers)", "Deformable DETR", "mine (lib.models)", "FCOS (torchvision)"]
