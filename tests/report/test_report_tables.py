"""What stands in which cell: published beside measured, differences only where they are allowed, and why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import report_fixture

from detrbench import yaml12
from detrbench.report import figures, findings, labels, sections, tables
from detrbench.report.columns import TableCell
from detrbench.report.sections import Section
from detrbench.report.tables import Table
from detrbench.results.store import ResultsStore


def section(root: Path, suite: str = "focus_table6_keep_ratio") -> Section:
    return sections.read(ResultsStore(root), [suite])[0]


def cell(table: Table, row: str, key: str) -> TableCell:
    keys = [column.key for column in table.columns]
    return next(r for r in table.rows if r.id == row).cells[keys.index(key)]


def test_published_beside_measured(results: Path) -> None:
    table = tables.main_table(section(results))
    assert cell(table, "sparse-0.3", "AP.published").text == "46.0"
    assert cell(table, "sparse-0.3", "gflops.published").text == "121"
    assert cell(table, "sparse-0.3", "gflops.own").text == "120.5"
    assert cell(table, "sparse-0.3", "gflops.difference").text == "−0.4 %"
    assert cell(table, "sparse-0.3", "gflops.common").text == "127.0"
    assert cell(table, "sparse-0.3", "AP.measured").detail.startswith("[")
    assert [row.id for row in table.rows[:5]] == [f"sparse-0.{i}" for i in range(1, 6)]


def test_a_published_table_without_models_names_its_rows_by_their_first_word() -> None:
    found = sections.section_of("lite_table2", "paper", {"published": "lite_detr/table2"}, [])
    table = tables.main_table(found)
    assert [row.name for row in table.rows] == ["S1", "S2", "S3", "S4"]
    assert cell(table, "published-4", "token_share.published").text == "75.3"


def test_each_way_to_run_has_a_column_of_its_own(results: Path) -> None:
    def latencies() -> list[Table]:
        return [table for table in tables.detail_tables(section(results)) if table.key == "latencies"]

    assert latencies() == []  # one way alone stands in the main table
    for path in results.glob("*table6*/smoke/cells/sparse-0.3-*/latency.json"):
        envelope = json.loads(path.read_text())
        envelope["records"]["optimised"] = report_fixture.latency(10.25)
        path.write_text(json.dumps(envelope))
    (table,) = latencies()
    assert [column.label for column in table.columns] == ["common", "optimised"]
    assert cell(table, "sparse-0.3", "latency.common").text == "30.0"
    assert cell(table, "sparse-0.3", "latency.optimised").text == "10.25"
    assert cell(table, "sparse-0.1", "latency.optimised").kind == "absent"


def test_the_ways_to_run_are_drawn_as_ratios_to_the_first_row_timed(results: Path) -> None:
    def drawn() -> list[figures.Figure]:
        return [figure for figure in figures.drawings(section(results)) if figure.key == "latency_ways"]

    assert drawn() == []
    for ratio, ms in (("0.1", 8.0), ("0.3", 10.0), ("0.5", None)):
        for path in results.glob(f"*table6*/smoke/cells/sparse-{ratio}-*/latency.json"):
            envelope = json.loads(path.read_text())
            if ms is not None:
                envelope["records"]["cuda_graph"] = report_fixture.latency(ms)
            path.write_text(json.dumps(envelope))
    (figure,) = drawn()
    first = next(entry.id for entry in section(results).entries if entry.record("latency", "common"))
    assert first == "sparse-0.1"
    assert "over that of sparse-0.1" in figure.caption
    assert "sparse-0.3, cuda graph: 1.25 times" in figure.svg
    assert "sparse-0.5, cuda graph" not in figure.svg


def test_smoke_ap_is_never_compared(results: Path) -> None:
    table = tables.main_table(section(results))
    assert "AP.difference" not in [column.key for column in table.columns]
    *published, measured, corr = table.columns
    assert (measured.key, corr.key) == ("AP.measured", "corr")  # a block of its own, behind all that is published
    assert measured.group == corr.group == "measured, smoke scale: shapes 128 px: not COCO"
    assert not [column for column in published if column.apart]
    full = next(made for made in tables.detail_tables(section(results)) if made.key == "accuracy")
    assert [name for name, _ in full.groups] == ["published, COCO val2017", measured.group]


@pytest.mark.parametrize(("images", "compared"), [(5000, True), (100, False)])
def test_paper_ap_is_compared_on_all_of_val2017(tmp_path: Path, images: int, compared: bool) -> None:
    report_fixture.write_table6(tmp_path, "paper")
    for path in tmp_path.glob("*/*/cells/*/accuracy.json"):
        envelope = json.loads(path.read_text())
        envelope["records"]["common"]["num_images"] = images
        path.write_text(json.dumps(envelope))
    for path in tmp_path.glob("*/*/cells/*/cell.yaml"):
        values = yaml12.load(path).value
        path.write_text(yaml12.dump({**values, "resolved": {"data": "coco", "path": "/data/coco"}}))
    table = tables.main_table(section(tmp_path))
    assert ("AP.difference" in [column.key for column in table.columns]) is compared
    if compared:
        assert cell(table, "sparse-0.4", "AP.difference").kind == "absent"


def test_what_is_missing_says_why(results: Path) -> None:
    table = tables.main_table(section(results))
    missing = cell(table, "sparse-0.4", "AP.measured")
    assert missing.note == "not measured: no checkpoint given and no training asked for"
    assert missing.note in table.notes
    statuses = {row.id: row.status for row in table.rows}
    assert statuses["focus-0.1"] == statuses["sparse-dino-0.5"] == "not built yet"
    assert statuses["sparse-0.4"] is None
    assert cell(table, "focus-0.1", "AP.published").text == "48.9"


def test_doubtful_cells_carry_their_reason(results: Path) -> None:
    note = cell(tables.main_table(section(results)), "sparse-0.1", "gflops.published").note
    assert note
    assert note.startswith("doubtful: ")


def test_columns_that_never_differ_are_folded(results: Path) -> None:
    table = tables.main_table(section(results))
    assert ("Backbone", "R50") in table.folded
    assert ("Params (M), ours", "40.9") in table.folded
    assert "backbone" not in [column.key for column in table.columns]
    assert section(results).changed == {"backbone": "tiny"}


def test_published_rows_without_a_cell_stay(results: Path) -> None:
    for path in results.glob("focus_table6*/smoke/cells/focus-0.2-*/*"):
        path.unlink()
    row = next(row for row in tables.main_table(section(results)).rows if row.id == "published-12")
    assert row.status == "published only"


def test_a_broken_selector_is_told_and_the_cell_is_kept(results: Path) -> None:
    path = next(results.glob("focus_table6*/smoke/cells/sparse-0.3-*/cell.yaml"))
    path.write_text(path.read_text().replace("model: Sparse DETR", "model: Sparse"))
    found = section(results)
    assert any("sparse-0.3" in problem for problem in found.problems)
    assert "sparse-0.3" in [row.id for row in tables.main_table(found).rows]


def test_records_without_figures_do_not_break_the_report(results: Path) -> None:
    for path in results.glob("*/*/cells/*/*.json"):
        content = json.loads(path.read_text())
        if "records" in content:
            content["records"] = {"common": {"gflops": None, "ap": None, "epochs": None, "gflops_by_part": None}}
            path.write_text(json.dumps(content))
    for found in sections.read(ResultsStore(results)):
        assert tables.main_table(found).rows
        assert not findings.about(found)


def test_no_published_table(results: Path) -> None:
    table = tables.main_table(section(results, "quickstart"))
    assert not [column for column in table.columns if column.key.endswith(".published")]
    assert [row.id for row in table.rows] == ["deformable", "sparse-0.1", "sparse-0.3", "sparse-0.5"]


@pytest.mark.parametrize(
    ("value", "decimals", "sign", "text"),
    [
        (-0.04, 1, True, "0.0"),
        (-1.25, 2, False, "−1.25"),
        (12345.6, 0, False, "12\u202f346"),
        (0.5, 1, True, "+0.5"),
        (float("nan"), 1, False, "–"),
        (None, 1, False, "–"),
    ],
)
def test_fixed_numbers(value: float | None, decimals: int, sign: bool, text: str) -> None:
    assert labels.fixed(value, decimals, sign) == text


def test_footnote_letters() -> None:
    assert [labels.letter(i) for i in (0, 25, 26, 51, 52)] == ["a", "z", "aa", "az", "ba"]


def test_a_suite_chooses_its_tables_and_plots(results: Path) -> None:
    path = results / "quickstart" / "smoke" / "suite.yaml"
    asked = {"tables": ["training"], "plots": ["ap_gflops", "gflops_by_part"]}
    path.write_text(yaml12.dump({**yaml12.load(path).value, "report": asked}))
    found = section(results, "quickstart")
    assert [table.key for table in tables.detail_tables(found)] == ["training"]
    assert [figure.key for figure in figures.drawings(found)] == ["ap_gflops", "gflops_by_part"]


def test_a_measure_that_no_row_has_is_a_sentence_not_columns(results: Path) -> None:
    for path in results.glob("focus_table6*/smoke/cells/*/latency.json"):
        path.unlink()
        status = json.loads((path.parent / "status.json").read_text())
        status["measures"]["latency"] = {"state": "not_measured", "why": "no time"}
        (path.parent / "status.json").write_text(json.dumps(status))
    table = tables.main_table(section(results))
    assert table.missing == ("latency: not measured: no time",)
    assert "latency" not in [column.key for column in table.columns]


def evaluate_under(root: Path, row: str, rule: str) -> None:
    """Gives a row of the quick start an AP under another protocol, which its table asks for."""
    folder = next(root.glob(f"quickstart/smoke/cells/{row}-*"))
    made = yaml12.load(folder / "cell.yaml").value
    (folder / "cell.yaml").write_text(yaml12.dump(made | {"protocols": [rule]}))
    envelope = json.loads((folder / "accuracy.json").read_text())
    envelope["records"][rule] = envelope["records"]["common"] | {"protocol": rule}
    (folder / "accuracy.json").write_text(json.dumps(envelope))


def test_an_ap_under_another_rule_says_so(results: Path) -> None:
    rows = [entry.id for entry in section(results, "quickstart").entries if entry.record("accuracy", "common")]
    evaluate_under(results, rows[0], "dac")
    mixed = tables.main_table(section(results, "quickstart"))
    assert cell(mixed, rows[0], "AP.measured").detail.endswith("] dac")
    assert cell(mixed, rows[1], "AP.measured").detail.endswith("] common")
    for row in rows[1:]:
        evaluate_under(results, row, "dac")
    alike = tables.main_table(section(results, "quickstart"))
    heading = next(column.label for column in alike.columns if column.key == "AP.measured")
    assert heading.endswith(", protocol dac")
    assert cell(alike, rows[0], "AP.measured").detail.endswith("]")
