"""What is wrong or uncertain in a published figure stands in the report, beside the figure."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import pytest
import report_fixture
from shipped_suites import cells, load

from detrbench import yaml12
from detrbench.report import labels, render, sections, tables
from detrbench.results.store import ResultsStore
from detrbench.suite import loading as suites

# Figures that the report shows as published; of others it shows ours alone.
SHOWN = {"AP", "AP50", "AP75", "APS", "APM", "APL", "gflops", "params_M", "fps", "corr_mean"}


def write_suite(root: Path, name: str) -> Path:
    """Results of a suite that comes along, of which one row has an invented AP."""
    loaded = load(name).suite
    folder = root / name / "smoke"
    folder.mkdir(parents=True)
    spec = {"name": name, "title": loaded.title, "published": loaded.published, "scales": {"smoke": {}}}
    (folder / "suite.yaml").write_text(yaml12.dump(spec))
    row = next(cell for cell in cells(name, "smoke") if cell.row and cell.model)
    cell: dict[str, Any] = {"id": row.id, "suite": name, "scale": "smoke", "model": row.model, "row": row.row}
    report_fixture.write_cell(folder, cell, {"accuracy": {"common": report_fixture.accuracy(40.0, 200)}}, {})
    return root


def flags(section: sections.Section) -> dict[str, str]:
    """Column: why, of every flag of a figure that the report shows."""
    rows = [entry.published for entry in section.entries if entry.published is not None]
    remarks = [item for row in rows for item in [*row.doubtful.items(), *row.not_reproduced.items()]]
    return {f"{column}: {why}": why for column, why in remarks if column in SHOWN or column not in labels.FIGURES}


def test_every_flag_of_a_shown_figure_is_a_footnote(tmp_path: Path) -> None:
    # Lite DETR's Table 2 is arithmetic: none of its rows is a detector.
    for name in (name for name in suites.names() if load(name).suite.published and name != "lite_table2"):
        write_suite(tmp_path, name)
    found = sections.read(ResultsStore(tmp_path))
    assert len(found) > 20
    flagged = 0
    for section in found:
        made = [tables.main_table(section), *tables.detail_tables(section)]
        notes = " ".join(note for table in made for note in table.notes)
        assert [flag for flag, why in flags(section).items() if why not in notes] == [], section.suite
        flagged += len(flags(section))
    assert flagged > 20


@pytest.mark.usefixtures("undrawn")
def test_misprints_stand_in_the_page(tmp_path: Path) -> None:
    """Those of the papers that an audit found, each at its figure."""
    for name in ("focus_table1_main", "lite_table4", "focus_table5_modulation", "focus_table3_correlation"):
        write_suite(tmp_path, name)
    page = html.unescape(render(tmp_path))
    for flag in (
        "DETR's; Sparse DETR's Table 1 has 62.1",
        "of PnP-DETR-DC5, as are AP50 to APL; PnP-DETR has 41.1 at this keep ratio (Sparse DETR's Table 1)",
        "of PnP-DETR-DC5, as are AP50 to APL; PnP-DETR has 41.8 at this keep ratio, 0.5 (Sparse DETR's Table 1)",
        "Lite DETR's Table 3 has 50 for the same AP",
        "the row of Table 4 that has modulation and no dual attention has the same AP and AP50",
    ):
        assert flag in page, flag


def test_only_a_corr_of_the_papers_definition_stands_beside_it(tmp_path: Path) -> None:
    root = write_suite(tmp_path, "focus_table3_correlation")
    (cell,) = root.glob("focus_table3_correlation/smoke/cells/*")
    described = yaml12.load(cell / "cell.yaml").value
    (cell / "cell.yaml").write_text(yaml12.dump({**described, "protocols": ["focus_table3"]}))
    record = {"protocol": "x", "convention": "x", "std": 0.1, "per_level": [], "kept_fraction": 0.3}
    both = {
        "common": {**record, "corr": report_fixture.estimate(0.4, "share", 200, 0.01)},
        "focus_table3": {**record, "corr": report_fixture.estimate(0.7, "share", 200, 0.01)},
    }
    envelope = {"schema": 1, "measure": "dam", "key": "k", "seconds": 1.0, "records": both}
    (cell / "dam.json").write_text(json.dumps(envelope))
    (section,) = sections.read(ResultsStore(root))
    table = tables.main_table(section)
    measured = next(row for row in table.rows if row.measured)
    texts = {c.key: (c.group, cell.text) for c, cell in zip(table.columns, measured.cells, strict=True)}
    apart = [column for column in table.columns if column.apart]  # measured on generated images: a block of its own
    assert texts["corr.paper"] == (apart[0].group, "0.700")
    assert texts["corr"] == (apart[0].group, "0.400")
    labels = {column.key: column.label for column in apart if "corr" in column.key}
    assert labels == {"corr.paper": "Corr", "corr": "Corr over all of the decoder's attention"}
    assert [column.key for column in table.columns if column.group == "Corr"] == ["corr.published"]


def test_a_value_that_is_the_same_in_every_row_keeps_its_flag(tmp_path: Path) -> None:
    (section,) = sections.read(ResultsStore(write_suite(tmp_path, "lite_table1")))
    table = tables.main_table(section)
    assert "epochs" in [column.key for column in table.columns]
    assert "Epochs (published)" not in dict(table.folded)
