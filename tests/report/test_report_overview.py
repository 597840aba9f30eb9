"""All suites together: each detector once under one protocol, AP by condition, how published figures were counted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import report_fixture

from detrbench import published, yaml12
from detrbench.report import contents, counts, overview, render, sections
from detrbench.report.sections import Section
from detrbench.results.store import ResultsStore


def found(root: Path) -> list[Section]:
    return sections.read(ResultsStore(root))


def copy_suite(root: Path, name: str, new: str) -> Path:
    shutil.copytree(root / name, root / new)
    for path in (root / new).glob("*/cells/*/cell.yaml"):
        path.write_text(path.read_text().replace(f"suite: {name}", f"suite: {new}"))
    return root / new


def change(path: Path, **values: object) -> None:
    path.write_text(yaml12.dump({**yaml12.load(path).value, **values}))


def test_a_detector_of_two_suites_is_one_row(results: Path) -> None:
    before = overview.detectors(found(results))
    copy_suite(results, "focus_table6_keep_ratio", "again")
    after = overview.detectors(found(results))
    assert len(before.section.entries) == len(after.section.entries) == 5 + 4
    table = overview.detector_table(after)
    place = [column.key for column in table.columns].index("suites")
    assert {row.cells[place].text for row in table.rows} == {"again and 1 more", "quickstart"}


def test_detectors_have_distinct_names_and_the_cheapest_comes_first(results: Path) -> None:
    entries = overview.detectors(found(results)).section.entries
    assert len({entry.id for entry in entries}) == len(entries)
    is_tiny = [entry.options["backbone"] == "tiny" for entry in entries]
    assert is_tiny == sorted(is_tiny)  # those for quick runs come last
    for wanted in (False, True):
        costs = [overview.gflops(entry) for entry, tiny in zip(entries, is_tiny, strict=True) if tiny is wanted]
        assert costs == sorted(costs)


def test_bars_are_shares_of_the_longest(results: Path) -> None:
    table = overview.detector_table(overview.detectors(found(results)))
    place = [column.key for column in table.columns].index("gflops.common")
    lengths = [sum(share for _, share in row.cells[place].bar) for row in table.rows]
    assert max(lengths) == pytest.approx(1)
    values = [row.cells[place].value for row in table.rows]
    assert lengths == pytest.approx([value / max(values) for value in values])


def test_ap_of_other_data_scales_or_detectors_is_never_gathered(results: Path) -> None:
    for name, values in (
        ("same", {}),
        ("longer", {"epochs": 36}),
        ("larger", {"image_size": 256}),
        ("coco", {"data": "coco"}),
    ):
        for path in copy_suite(results, "quickstart", name).glob("smoke/cells/*"):
            change(path / "cell.yaml", resolved={**report_fixture.SETTINGS, **values})
            if values and (path / "training.json").is_file():
                training = json.loads((path / "training.json").read_text())
                (path / "training.json").write_text(json.dumps({**training, "key": f"{path.name}, {name}"}))
    made = overview.conditions(found(results))
    told = {(section.condition, *section.spec["suites"]) for section in made}
    assert told == {
        ("smoke scale: shapes 128 px", "longer", "quickstart"),  # the recipe is no condition; "same" is the same row
        ("smoke scale: shapes 256 px", "larger"),
        ("smoke scale: COCO", "coco"),
        ("smoke scale: shapes 128 px", "focus_table6_keep_ratio"),  # that scale makes the backbone tiny
    }


def test_ap_on_fewer_images_is_another_condition(results: Path) -> None:
    for path in copy_suite(results, "quickstart", "fewer").glob("smoke/cells/*/accuracy.json"):
        path.write_text(path.read_text().replace('"num_images": 200', '"num_images": 100'))
    gathered = [section.spec["suites"] for section in overview.conditions(found(results))]
    assert ["fewer"] in gathered
    assert ["quickstart"] in gathered


def test_weights_of_another_row_make_another_row(results: Path) -> None:
    before = sum(len(section.entries) for section in overview.conditions(found(results)))
    suite = copy_suite(results, "quickstart", "borrowed")
    for path in suite.glob("smoke/cells/*"):
        change(path / "cell.yaml", weights_of="sparse-0.3")
        (path / "training.json").unlink(missing_ok=True)
    with_ap = len(list(suite.glob("smoke/cells/*/accuracy.json")))
    assert with_ap
    assert sum(len(section.entries) for section in overview.conditions(found(results))) == before + with_ap


def test_published_figures_beside_both_counts(results: Path) -> None:
    section = counts.counted_rows(found(results))
    table = counts.table(section)
    keys = [column.key for column in table.columns]
    row = dict(zip(keys, next(row for row in table.rows if row.id == "sparse-0.3").cells, strict=True))
    assert row["gflops.published"].text == "121"
    assert row["gflops.protocol"].text == "sparse_table1"
    assert (row["gflops.own"].text, row["gflops.difference"].text) == ("120.5", "−0.4 %")
    assert (row["gflops.common"].text, row["gflops.against_common"].text) == ("127.0", "−4.7 %")
    assert row["source"].text == "Focus-DETR, Table 6"
    assert "5 of 5 are met within 0.5 %" in str(counts.facts(section)[0])


def test_one_detector_with_two_published_figures_is_told(results: Path) -> None:
    suite = copy_suite(results, "focus_table6_keep_ratio", "sparse_main")
    change(suite / "smoke" / "suite.yaml", published="sparse_detr/table1")
    for path in suite.glob("smoke/cells/*/cell.yaml"):
        row = {"model": "Sparse DETR", "backbone": "R50", "keep_ratio": 0.3}
        change(path, row=row if path.parent.name.startswith("sparse-0.3") else None)
    theirs = published.load("sparse_detr/table1").select({"model": "Sparse DETR", "backbone": "R50", "keep_ratio": 0.3})
    assert theirs.values["gflops"] == 121
    told = [str(fact) for fact in counts.facts(counts.counted_rows(found(results)))]
    assert not [fact for fact in told if "apart" in fact]  # both print 121
    for path in suite.glob("smoke/cells/sparse-0.3-*/cell.yaml"):
        change(path, row={"model": "Sparse DETR", "backbone": "R50", "keep_ratio": 0.5})
    told = [str(fact) for fact in counts.facts(counts.counted_rows(found(results)))]
    assert [fact for fact in told if "121" in fact and "136" in fact and "apart; 127.0 under common" in fact]


@pytest.mark.usefixtures("undrawn")
def test_contents_go_by_paper_and_table_number(results: Path) -> None:
    for name, reference in (("b", "focus_detr/table10"), ("c", "dino/table5"), ("d", "focus_detr/table2")):
        change(copy_suite(results, "quickstart", name) / "smoke" / "suite.yaml", published=reference)
    groups = contents.groups(found(results))
    assert [group.title for group in groups] == [
        "DINO, ICLR 2023", "Focus-DETR, ICCV 2023", contents.OWN
    ]  # fmt: skip
    assert [section.suite for section in groups[1].sections] == ["d", "focus_table6_keep_ratio", "b"]
    html = render(results)
    assert [html.index(f'<section id="{name}-smoke"') for name in ("c", "d", "b", "quickstart")] == sorted(
        html.index(f'<section id="{name}-smoke"') for name in ("c", "d", "b", "quickstart")
    )


def test_thirty_suites_stay_small(results: Path) -> None:
    copy_suite(results, "focus_table6_keep_ratio", "another")
    html = render(results)
    assert len(html) / 3 * 30 < 5e6
    assert html.count('<section id="') == 3 + 6


@pytest.mark.usefixtures("undrawn")
def test_one_suite_has_no_overview(results: Path) -> None:
    assert '<section id="all"' in render(results)
    html = render(results, ["quickstart"])
    assert '<section id="all"' not in html
    assert "How each published figure was counted" not in html


def test_overview_in_text_formats(results: Path) -> None:
    document = json.loads(render(results, None, "json"))
    assert [table["key"] for table in document["all"]] == ["detectors", "counts"]
    assert "### How each published figure was counted" in render(results, None, "md")
    assert json.loads(render(results, ["quickstart"], "json"))["all"] == []
