"""Charts of AP against cost: which points they have, what they join, and the sentence that they say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import report_fixture

from detrbench.errors import UsageError
from detrbench.report import charts, overview, sections, wording
from detrbench.report.charts import Chart
from detrbench.report.identity import Identity
from detrbench.report.marks import Mark
from detrbench.report.sections import Section
from detrbench.results.store import ResultsStore


def found(root: Path, *suites: str) -> list[Section]:
    return sections.read(ResultsStore(root), list(suites))


def mark(x: float, y: float, identity: Identity | None = None, **more: Any) -> Mark:
    return Mark("row", identity or Identity("DINO", "DINO", "mixed", "resnet50"), {"gflops": x}, {"AP": y}, **more)


def headline(root: Path, *suites: str) -> Chart:
    chart = charts.headline(found(report_fixture.write_shipped(root, "paper", list(suites))))
    assert chart is not None
    return chart


def test_below_paper_scale_ap_stands_at_costs_of_the_evaluated_detector(results: Path) -> None:
    """The counted detector has ResNet-50, the evaluated one a tiny backbone: its GFLOPs are not those."""
    (section,) = found(results, "focus_table6_keep_ratio")
    published, measured = charts.of_section(section)
    assert not any(m.measured for m in published.marks)
    assert measured.x == "latency"
    assert all(m.measured and "gflops" not in m.x and "params" not in m.x for m in measured.marks)
    assert {m.identity.backbone for m in measured.marks} == {"tiny"}
    assert "not drawn here" in measured.caption
    (same,) = charts.of_section(found(results, "quickstart")[0])  # counted as it is evaluated
    assert same.x == "gflops"


def test_below_paper_scale_gflops_are_those_of_the_evaluated_detector(tmp_path: Path) -> None:
    (section,) = found(report_fixture.write_shipped(tmp_path, "smoke", ["focus_table6_keep_ratio"]))
    _, measured = charts.of_section(section)
    assert measured.x == "gflops_evaluated"
    assert "at the size of their evaluation images (protocol evaluated)" in measured.caption
    counts = {m.row: m.x["gflops_evaluated"] for m in measured.marks}
    for entry in section.entries:
        assert counts[entry.id] == entry.record("complexity", "evaluated")["gflops"] < 5
    trained = found(report_fixture.write_shipped(tmp_path / "own", "smoke", ["quickstart"]))
    assert charts.named(trained, "ap_gflops").x == "gflops_evaluated"
    assert "evaluated" not in section.protocols("complexity")


def test_a_smoke_ap_never_stands_in_the_headline(results: Path) -> None:
    for path in results.glob("focus_table6*/*/cells/*/cell.yaml"):  # the very detector that the published AP is of
        path.write_text(path.read_text().replace("backbone: tiny", "backbone: resnet50"))
    chart = charts.headline(found(results, "focus_table6_keep_ratio"))
    assert chart is not None
    assert len(chart.shown) == 5
    assert not any(m.measured for m in chart.marks)
    assert "Hollow: as published" in chart.caption


def test_measured_ap_on_all_of_val2017_joins_the_headline(tmp_path: Path) -> None:
    report_fixture.write_table6(tmp_path, "paper")
    for path in tmp_path.glob("*/*/cells/*/*.*"):
        text = path.read_text().replace('"num_images": 200', '"num_images": 5000').replace("data: shapes", "data: coco")
        path.write_text(text.replace("backbone: tiny", "backbone: resnet50"))
    chart = charts.headline(found(tmp_path))
    assert chart is not None
    assert {m.measured for m in chart.shown} == {True, False}
    assert "filled: measured here" in chart.caption


def test_the_headline_says_what_is_saved(tmp_path: Path) -> None:
    """As counted: DINO 244.5 GFLOPs with 50.9 AP, Focus-DETR 154.0 with 50.4."""
    report_fixture.write_shipped(tmp_path, "paper", ["focus_table1_main"])
    for path in tmp_path.glob("*/*/cells/*/complexity.json"):
        value = 244.5 if path.parent.name.startswith("dino-0") or path.parent.name[:5] == "dino-" else 190.0
        value = 154.0 if "focus" in path.parent.name else 150.0 if "sparse" in path.parent.name else value
        envelope = json.loads(path.read_text())
        envelope["records"]["common"]["gflops"] = value
        path.write_text(json.dumps(envelope))
    chart = charts.headline(found(tmp_path))
    assert chart is not None
    assert chart.sentence == (
        "Focus-DETR at a keep ratio of 0.3 saves 37 % of DINO's GFLOPs for 0.5 AP (Focus-DETR, both as published)."
    )


def test_a_saving_is_told_only_against_ones_own_base_trained_as_long() -> None:
    base = mark(200, 50.0, epochs="36", source="P, Table 1")
    focus = Identity("Focus-DETR", "DINO", "mixed", "resnet50", kept=0.3)
    good = mark(120, 49.8, focus, epochs="36", source="P, Table 6")
    assert wording.sentence([base, good], "gflops").startswith("Focus-DETR at a keep ratio of 0.3 saves 40 %")
    for other in (
        replace(good, epochs="12"),
        replace(good, source="Q, Table 6"),
        replace(good, measured=True),
        replace(good, identity=replace(focus, backbone="resnet101")),
        replace(good, identity=replace(focus, base="H-DETR")),
        replace(good, y={"AP": 49.4}),  # too much is lost to call it a saving
    ):
        assert wording.sentence([base, other], "gflops") == ""
    untrained = [replace(base, y={"AP": 0.4}), replace(good, y={"AP": 0.3})]
    assert wording.sentence(untrained, "gflops") == ""
    gain = wording.sentence([base, replace(good, y={"AP": 50.4}, measured=False)], "gflops")
    assert "and gains 0.4 AP" in gain


def test_a_measured_ap_within_the_intervals_is_no_gain_and_no_loss() -> None:
    base = mark(100, 39.5, measured=True, spans={"AP": (37.0, 42.0)})
    good = Identity("Focus-DETR", "DINO", "mixed", "resnet50", 0.3)
    near = mark(60, 40.2, good, measured=True, spans={"AP": (37.6, 42.7)})
    assert "saves 40 % of DINO's GFLOPs at no clear difference in AP, 40.2 against 39.5 (on these" in (
        wording.sentence([base, near], "gflops")
    )
    far = mark(60, 48.0, good, measured=True, spans={"AP": (46.0, 50.0)})
    assert "and gains 8.5 AP (on these weights)" in wording.sentence([base, far], "gflops")


def test_one_detector_of_several_tables_is_one_point(tmp_path: Path) -> None:
    chart = headline(
        tmp_path, "focus_table1_main", "focus_table3_correlation", "focus_table6_keep_ratio", "focus_figure7_ap_gflops"
    )
    curves = [m for m in chart.marks if m.curve]
    assert len(curves) == 15  # two tables print the same three curves
    focus = [m for m in chart.marks if m.identity.method == "Focus-DETR" and m.identity.base == "DINO"]
    assert sorted(m.at for m in focus) == [0.1, 0.2, 0.3, 0.4, 0.5]  # type: ignore[type-var]


def test_curves_are_named_at_their_end_and_a_name_tells_them_apart(tmp_path: Path) -> None:
    chart = headline(tmp_path, "focus_figure7_ap_gflops", "focus_table1_main")
    names = {text: m for m, text in wording.named(chart.shown)}
    assert names["Focus-DETR, 0.1 to 0.5"].at == 0.5
    assert {"Sparse DETR on DINO, 0.1 to 0.5", "Sparse DETR on Deformable DETR, 0.1 to 0.5", "DINO"} <= set(names)


@pytest.mark.parametrize(("suite", "names"), [
    ("focus_table7_cascade", {"Focus-DETR, 0.1 to 0.5 (cascade)", "Focus-DETR, 0.2 to 0.5 (constant)"}),
    ("keep_ratio_transfer", {f"Sparse DETR, 0.1 to 0.5 (trained-{ratio})" for ratio in (0.1, 0.3, 0.5)}),
])  # fmt: skip
def test_curves_of_one_detector_are_told_apart_by_their_rows(tmp_path: Path, suite: str, names: set[str]) -> None:
    (section,) = found(report_fixture.write_shipped(tmp_path, "smoke", [suite]))
    (chart,) = charts.of_section(section)
    assert {text for _, text in wording.named(chart.shown)} == names


def test_unbeaten_points_by_length_of_training() -> None:
    points = [mark(x, y, epochs=e) for x, y, e in ((3, 5, "12"), (1, 2, "12"), (2, 1, "12"), (2, 4, "36"), (4, 9, ""))]
    assert [(m.x["gflops"], m.y["AP"]) for m in wording.unbeaten(points, "gflops", "AP")] == [
        (1, 2),
        (2, 4),
        (3, 5),
        (4, 9),
    ]
    ((epochs, best),) = wording.lengths(points, "gflops", "AP")
    assert (epochs, [m.x["gflops"] for m in best]) == ("12", [1, 3])


def test_a_point_tells_ratio_epochs_table_and_both_counts(tmp_path: Path) -> None:
    chart = headline(tmp_path, "focus_table6_keep_ratio")
    tips = [wording.tip(m, "gflops", "AP") for m in chart.shown if m.identity.method == "Focus-DETR"]
    assert any(
        tip.startswith("Focus-DETR on DINO, 0.3: 50.4 AP at ")
        and tip.endswith(" GFLOPs, 154 published GFLOPs, 36 epochs (Focus-DETR, Table 6)")
        for tip in tips
    ), tips


def test_corr_is_that_of_the_papers_definition_where_there_is_one(tmp_path: Path) -> None:
    root = report_fixture.write_shipped(tmp_path, "smoke", ["focus_table3_correlation"])
    for path in root.glob("*/*/cells/*/dam.json"):
        envelope = json.loads(path.read_text())
        own = {**envelope["records"]["common"], "corr": report_fixture.estimate(0.7, "share", 200, 0.01)}
        envelope["records"]["focus_table3"] = own
        path.write_text(json.dumps(envelope))
    published, measured = charts.of_section(found(root)[0])
    assert {m.y["Corr"] for m in measured.marks} == {0.7}
    assert sorted(m.y["Corr"] for m in published.marks if "Corr" in m.y) == [0.5081, 0.5176, 0.5784, 0.7211]


def test_what_was_measured_under_one_condition_is_gathered_whatever_its_suite(tmp_path: Path) -> None:
    """Options that only the scale gives are a change too: a suite without defaults trains the same small detectors."""
    every = found(report_fixture.write_shipped(tmp_path, "smoke", ["dac_figure3", "lite_table5"]))
    assert len(overview.conditions(every)) == 1
    for section in every:
        assert section.changed["backbone"] == "tiny"
        assert not any(entry.counted_is_evaluated for entry in section.entries if entry.cell)


def test_a_figure_is_asked_for_by_name(results: Path) -> None:
    every = found(results)
    assert charts.named(every, "ap_gflops").y_label == "AP, COCO val2017"
    assert charts.named(every, "ap_latency").y_label == "AP, smoke scale: shapes 128 px"
    assert charts.named(found(results, "focus_table6_keep_ratio"), "corr_latency").y == "Corr"
    with pytest.raises(UsageError, match="ap_glops") as caught:
        charts.named(every, "ap_glops")
    assert "ap_gflops" in str(caught.value.hint)
    with pytest.raises(UsageError, match="fewer than two rows") as caught:
        charts.named(found(results, "quickstart"), "ap_gflops_published")
    assert "ap_gflops" in str(caught.value.hint)
