"""Rows that were trained with several seeds: means, spreads and intervals in tables, charts and words."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import report_fixture
from browser import CHROMIUM, Browser
from scipy import stats

from detrbench.report import columns, marks, overview, render, sections, tables, wording
from detrbench.report.entries import Entry
from detrbench.report.sections import Section
from detrbench.results.store import ResultsStore


@pytest.fixture
def section(results: Path) -> Section:
    """The quick start, where the dense row has APs of 50, 53 and 56 and the others one training each."""
    (path,) = results.glob("quickstart/smoke/cells/deformable-0000abcd")
    report_fixture.write_records(path, "accuracy", {"common": report_fixture.accuracy(50.0, 200)})
    report_fixture.write_seeds(results, "deformable", [(53.0, 0.5), (56.0, 0.5)])
    return read(results)


def read(results: Path) -> Section:
    return sections.read(ResultsStore(results), ["quickstart"])[0]


def dense(section: Section) -> Entry:
    return next(entry for entry in section.entries if entry.id == "deformable")


def test_a_table_shows_mean_spread_and_interval(section: Section) -> None:
    table = tables.main_table(section)
    assert [row.id for row in table.rows] == ["deformable", "sparse-0.1", "sparse-0.3", "sparse-0.5"]
    (place,) = [i for i, column in enumerate(table.columns) if column.key == "AP.measured"]
    several, once = (
        next(row.cells[place] for row in table.rows if row.id == id_) for id_ in ("deformable", "sparse-0.1")
    )
    assert (several.text, several.value, several.sd, several.seeds) == ("53.0 ± 3.0", 53, 3, 3)
    se = math.hypot(3 / math.sqrt(3), 1.3 / 1.959964)  # of the seeds' mean, and of the images of each training
    assert several.low == pytest.approx(53 - stats.t.ppf(0.975, 2 * se**4 / 9) * se)
    assert (once.sd, once.seeds, "±" in once.text) == (None, None, False)
    assert "mean ± SD of 1 to 3 seeds" in " ".join((table.columns[place].group, table.columns[place].label))


def test_figures_without_interval_are_means_too(section: Section) -> None:
    found = dense(section).figure("accuracy", "common", "stats", "AP75")
    assert found is not None
    assert (found.value, found.sd, found.low) == (55, 3, None)
    by_class = next(table for table in tables.detail_tables(section) if table.key == "per_class")
    assert by_class.rows[0].cells[0].text == "53.0 ± 3.0"


def test_what_is_shown_of_the_first_seed_says_so(section: Section, results: Path) -> None:
    assert columns.of_first(section) == ", first seed"
    captions = {table.key: table.caption for table in tables.detail_tables(section)}
    assert captions["training"] == "Training, first seed"


def test_of_single_trainings_nothing_is_said_of_seeds(results: Path) -> None:
    section = read(results)
    assert columns.of_first(section) == ""
    assert "seed" not in columns.accuracy_heading(section)


def test_a_training_that_failed_is_a_footnote(section: Section, results: Path) -> None:
    (path,) = results.glob("quickstart/smoke/cells/deformable#2-0000abcd")
    (path / "accuracy.json").unlink()
    why = {"state": "not_measured", "why": "training failed: diverged"}
    (path / "status.json").write_text(json.dumps({"measures": {"accuracy": why}}))
    table = tables.main_table(read(results))
    note = "1 of 3 trainings left out: deformable#2 not measured: training failed: diverged"
    assert note in table.notes
    assert dense(read(results)).seeds == 2


def test_a_point_stands_at_the_mean_and_says_so(section: Section) -> None:
    mark = next(mark for mark in marks.measured_marks(section) if mark.row == "deformable")
    assert (mark.y["AP"], mark.seeds) == (53, (3, 3.0))
    assert "53.0 AP ± 3.0 (SD of 3 seeds) [" in wording.tip(mark, "latency", "AP")
    low, high = mark.spans["AP"]
    assert low < 50 < 56 < high


@pytest.mark.parametrize(
    ("rows", "whose"),
    [
        ([], "on these weights"),
        (["sparse-0.1"], "on these weights"),
        (["sparse-0.1", "deformable"], "means over seeds"),
    ],
)
def test_a_sentence_on_a_chart_says_of_what_it_is(results: Path, rows: list[str], whose: str) -> None:
    costs = {"deformable": {"gflops": 20.0}, "sparse-0.1": {"gflops": 10.0}}
    found = [
        replace(mark, x=costs[mark.row], y={"AP": 50.0}, seeds=(3, 1.0) if mark.row in rows else None)
        for mark in marks.measured_marks(read(results))
        if mark.row in costs
    ]
    assert wording.sentence(found, "gflops").endswith(f"({whose}).")


def test_the_best_mean_comes_first(section: Section) -> None:
    (gathered, *_) = overview.conditions([section])
    rows = overview.condition_table(gathered).rows
    assert [row.id for row in rows].index("deformable") == _place(section)


def _place(section: Section) -> int:
    found = {e.id: f.value for e in section.entries if (f := e.figure("accuracy", "common", "ap", "value"))}
    return sorted(found, key=lambda id_: -found[id_]).index("deformable")


REDRAWN = """(() => {
  const told = [];
  for (const figure of document.querySelectorAll("figure")) {
    const log = figure.querySelector(".controls input");
    if (!log) continue;
    log.click();
    for (const point of figure.querySelectorAll(".point")) {
      point.focus();
      told.push(document.querySelector("[role=tooltip]").textContent);
    }
  }
  return told.join("; ");
})()"""


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine (Debian: apt-get install chromium)")
def test_a_chart_that_is_drawn_again_says_it_too(section: Section, results: Path, browser: Browser) -> None:
    path = results.parent / "report.html"
    path.write_text(render(results, ["quickstart"]))
    browser.open(path.as_uri())
    assert "53.0 AP ± 3.0 (SD of 3 seeds) [" in browser.value(REDRAWN)
