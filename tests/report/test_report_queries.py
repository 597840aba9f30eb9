"""The measure `queries` in a report: each threshold of DAC-DETR's Figure 3 beside what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import report_fixture

from detrbench import yaml12
from detrbench.report import render, sections, tables
from detrbench.report.sections import Section
from detrbench.report.tables import Table
from detrbench.results.store import ResultsStore


def record(per_object: float) -> dict[str, Any]:
    def estimates(*values: float) -> list[dict[str, Any]]:
        return [report_fixture.estimate(value, "%", 20, 0.25) for value in values]

    counts = {name: report_fixture.estimate(per_object / i, "queries per object", 20, 0.5)
              for i, name in enumerate(("0.6", "0.7", "0.8"), start=1)}  # fmt: skip
    return {
        "protocol": "common",
        "protocol_version": 1,
        "convention": "Invented convention of queries",
        "per_object": counts,
        "with_self_attention": {"to_object": estimates(30, 20, 10), "to_neighbour": estimates(5, 6, 7)},
        "without_self_attention": {"to_object": estimates(30, 15, 5), "to_neighbour": estimates(5, 4, 3)},
        "trajectories": [],
    }


@pytest.fixture
def section(tmp_path: Path) -> Section:
    folder = tmp_path / "figure3" / "smoke"
    folder.mkdir(parents=True)
    suite = {"name": "figure3", "title": "Queries per object", "published": "dac_detr/figure3", "measure": ["queries"]}
    (folder / "suite.yaml").write_text(yaml12.dump(suite))
    for index, (id_, name, figures) in enumerate(
        [("dac", "DAC-DETR", record(6.0)), ("plain", "Deformable-DETR", None)]
    ):
        cell = {"id": id_, "suite": "figure3", "scale": "smoke", "index": index, "model": "dac_detr_r50", "options": {},
                "row": {"model": name, "threshold": 0.7, "epoch": 12}, "resolved": report_fixture.SETTINGS}  # fmt: skip
        history = [{"epoch": epoch, "loss": 1.0, "queries_above_0.7": epoch / 10} for epoch in (6, 12)]
        trained = {"training": {"training": {"epochs": [{"epoch": 1, "loss": 2.0}, *history]}}}
        found = {"queries": {"common": figures}, **trained} if figures else {"memory": {"common": {"forward_mib": 1.0}}}
        report_fixture.write_cell(folder, cell, found, {} if figures else {"queries": "no checkpoint"})
    (one,) = sections.read(ResultsStore(tmp_path))
    return one


def texts(table: Table, row: str) -> dict[str, str]:
    cells = next(each for each in table.rows if each.id == row).cells
    return {column.key: f"{cell.text} {cell.detail}".strip() for column, cell in zip(table.columns, cells)}


def test_every_threshold_stands_beside_its_published_figure(section: Section) -> None:
    table = tables.main_table(section)
    assert [row.id for row in table.rows] == ["dac", "plain"]  # the other 70 points are of the same two curves
    assert {key: text for key, text in texts(table, "dac").items() if key.startswith("queries")} == {
        "queries.0.6.published": "5.49",
        "queries.0.6": "6.00 [5.50, 6.50]",
        "queries.0.7.published": "3.53",
        "queries.0.7": "3.00 [2.50, 3.50]",
        "queries.0.8.published": "1.72",
        "queries.0.8": "2.00 [1.50, 2.50]",
    }
    assert texts(table, "plain")["queries.0.8.published"] == "0.1"
    assert texts(table, "plain")["queries.0.8"] == "–"
    assert "not measured: no checkpoint" in table.notes
    assert "threshold" not in [column.key for column in table.columns]
    assert "Threshold" not in dict(table.folded)


def test_where_queries_end(section: Section) -> None:
    (table,) = [each for each in tables.detail_tables(section) if each.key == "spread"]
    assert texts(table, "dac") == {
        "to_object.with": "10.00 [9.75, 10.25]",
        "to_object.without": "5.00 [4.75, 5.25]",
        "to_neighbour.with": "7.00 [6.75, 7.25]",
        "to_neighbour.without": "3.00 [2.75, 3.25]",
    }


def test_each_evaluated_epoch_stands_beside_its_published_figure(section: Section) -> None:
    (table,) = [each for each in tables.detail_tables(section) if each.key == "queries_by_epoch"]
    found = [[cell.text for cell in row.cells] for row in table.rows]
    assert [column.key for column in table.columns] == ["epoch", "queries.0.7.published", "queries.0.7"]
    assert found == [["6", "3.64", "0.60"], ["12", "3.53", "1.20"]]


def test_published_figures_need_no_measured_ones(tmp_path: Path, section: Section) -> None:
    next(tmp_path.glob("figure3/smoke/cells/dac-*/queries.json")).unlink()
    (found,) = sections.read(ResultsStore(tmp_path))
    table = tables.main_table(found)
    assert [column.key for column in table.columns if column.key.startswith("queries")] == [
        f"queries.{threshold}.published" for threshold in (0.6, 0.7, 0.8)
    ]
    assert texts(table, "dac")["queries.0.8.published"] == "1.72"
    assert "queries_by_epoch" not in [each.key for each in tables.detail_tables(found)]


def test_curves_that_no_cell_answers_to_stay(tmp_path: Path, section: Section) -> None:
    path = next(tmp_path.glob("figure3/smoke/cells/plain-*/cell.yaml"))
    path.write_text(path.read_text().replace("Deformable-DETR", "Unknown"))
    (found,) = sections.read(ResultsStore(tmp_path))
    assert len(found.entries) == 1 + 36 + 1


@pytest.mark.parametrize("format", ["html", "md", "csv", "latex", "json"])
def test_every_format(tmp_path: Path, section: Section, format: str) -> None:
    text = render(tmp_path, None, format)
    assert "5.49" in text
    if format == "html":
        assert "Invented convention of queries" in text
