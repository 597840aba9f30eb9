"""A measured AP stands beside a published one only where both are of the same images at the same scale."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from detrbench.published import PublishedRow
from detrbench.report import columns
from detrbench.report.entries import Entry, number
from detrbench.report.sections import Section
from detrbench.results.store import CellResult


def section(scale: str = "paper", data: str = "coco", images: int = 5000) -> Section:
    estimate = {"value": 44.5, "low": 44.0, "high": 45.0}
    record = {"num_images": images, "ap": estimate, "ap50": estimate, "stats": {}}
    cell = CellResult(
        id="row",
        suite="s",
        scale=scale,
        folder=Path("nowhere"),
        cell={"id": "row", "resolved": {"data": data}},
        status={},
        records={"accuracy": {"common": record}},
    )
    row = PublishedRow(0, {"model": "M", "AP": 46.0, "gflops": 200.0}, "paper/table")
    return Section("s", scale, {}, None, [Entry("row", "M", row, cell)])


@pytest.mark.parametrize(
    ("changes", "comparable"),
    [({}, True), ({"scale": "mini"}, False), ({"data": "shapes"}, False), ({"images": 4999}, False)],
)
def test_ap_is_compared_only_at_the_papers_scale_on_all_of_its_images(
    changes: dict[str, Any], comparable: bool
) -> None:
    found = section(**changes)
    shown = [column for column in columns.accuracy(found, ["AP"]) if column.key == "AP.difference"]
    assert found.comparable(found.entries[0]) is comparable
    assert [column.make(found.entries[0]).value for column in shown] == ([pytest.approx(-1.5)] if comparable else [])


def test_a_row_that_is_not_comparable_has_no_difference_beside_one_that_is() -> None:
    found, other = section(), section(images=100).entries[0]
    found = dataclasses.replace(found, entries=[*found.entries, dataclasses.replace(other, id="other")])
    (column,) = [column for column in columns.accuracy(found, ["AP"]) if column.key == "AP.difference"]
    assert [column.make(entry).text for entry in found.entries] == ["\N{MINUS SIGN}1.5", columns.EMPTY.text]


def test_gflops_are_compared_in_percent_of_the_published_figure() -> None:
    found = section()
    cell = found.entries[0].cell
    assert cell is not None
    records = {"complexity": {"common": {"gflops": 300.0}, "sparse_table1": {"gflops": 201.0}}}
    entry = dataclasses.replace(found.entries[0], cell=dataclasses.replace(cell, records=records))
    assert columns.gflops_difference(entry) == pytest.approx(0.5)
    assert number(entry.record("complexity", entry.first("complexity")), "gflops") == 300


def test_training_is_shown_in_minutes() -> None:
    found = section()
    cell = found.entries[0].cell
    assert cell is not None
    record = {"training": {"training": {"epochs": [{"loss": 3.0}, {"loss": 2.5}], "images_seen": 80, "seconds": 90.0}}}
    entry = dataclasses.replace(found.entries[0], cell=dataclasses.replace(cell, records=record))
    shown = {column.label: column.make(entry).value for column in columns.training(found)}
    assert shown == {"epochs": 2, "images seen": 80, "last loss": 2.5, "minutes": 1.5}
