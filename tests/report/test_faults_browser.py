"""What was once wrong in the report, looked for in the page that a browser shows."""

from __future__ import annotations

import json
from typing import Any

import pytest
import report_fixture
from browser import CHROMIUM, Browser

from detrbench.report import render

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine (Debian: apt-get install chromium)")

LITE, SWEEP, DAC = "lite_table5-smoke", "focus_table6_keep_ratio-smoke", "dac_figure3-smoke"
LOOK = r"""
const all = (within, what) => [...document.querySelectorAll(`#${within} ${what}`)];
const texts = (within, what) => all(within, what).map((each) => each.textContent);
const figures = (within) => all(within, "figure[data-chart]").map((figure) => ({
  curves: figure.querySelectorAll(".curve").length,
  axes: [...figure.querySelectorAll(".plot text")].map((text) => text.textContent).join(" "),
  tips: [...figure.querySelectorAll(".point")].map((point) => point.getAttribute("aria-label")),
  methods: [...new Set([...figure.querySelectorAll(".point")].map((point) => point.dataset.method))],
}));
JSON.stringify(Object.fromEntries(IDS.map((id) => [id, {
  names: texts(id, "tbody th small i"),
  findings: texts(id, ".findings li b"),
  verdicts: texts(id, ".verdict"),
  banner: texts(id, ".banner"),
  groups: texts(id, ".apart, .groups th"),
  figures: figures(id),
}])));
"""


@pytest.fixture(scope="module")
def seen(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By section: names of detectors, findings with their verdicts, banners, headings and charts."""
    folder = tmp_path_factory.mktemp("faults")
    suites = ["lite_table5", "focus_table6_keep_ratio", "dac_figure3"]
    (folder / "report.html").write_text(render(report_fixture.write_shipped(folder / "results", "smoke", suites)))
    browser.open((folder / "report.html").as_uri())
    found: dict[str, Any] = json.loads(browser.value(LOOK.replace("IDS", json.dumps([LITE, SWEEP, DAC]))))
    return found


def test_lite_detr_has_its_name_and_colour_in_its_own_table(seen: dict[str, Any]) -> None:
    assert set(seen[LITE]["names"]) == {"Lite DETR on DINO"}
    assert all(set(figure["methods"]) == {"DINO", "Lite DETR"} for figure in seen[LITE]["figures"])


def test_a_finding_holds_the_method_against_its_baseline(seen: dict[str, Any]) -> None:
    assert "DAC-DETR against Deformable DETR" in seen[DAC]["findings"]
    assert not [said for said in seen[DAC]["findings"] if said.endswith("against DAC-DETR")]
    against = [said.split(" against ") for said in seen[SWEEP]["findings"] if " against Focus-DETR" in said]
    assert all(one.startswith("Focus-DETR") for one, _ in against)


def test_a_measured_ap_stands_at_the_cost_of_what_was_evaluated(seen: dict[str, Any]) -> None:
    published, measured = seen[SWEEP]["figures"]
    assert "GFLOPs of the evaluated detector" in measured["axes"]
    assert "GFLOPs, counted alike" in published["axes"]
    assert not [tip for tip in published["tips"] if "measured" in tip]
    assert len(measured["tips"]) == 15
    assert all("measured" in tip for tip in measured["tips"])


def test_only_a_declared_sweep_is_joined(seen: dict[str, Any]) -> None:
    assert [figure["curves"] for figure in seen[LITE]["figures"]] == [0, 0]
    assert [figure["curves"] for figure in seen[SWEEP]["figures"]] == [3, 3]
    for figure in seen[SWEEP]["figures"]:
        assert "Focus-DETR, 0.1 to 0.5" in figure["axes"]


def test_an_ap_of_generated_images_stands_apart_under_a_banner(seen: dict[str, Any]) -> None:
    for section in seen.values():
        assert any("generated images, 96 px: not COCO" in banner for banner in section["banner"])
    assert any("not COCO" in heading for heading in seen[SWEEP]["groups"])
    assert "published, COCO val2017" in seen[SWEEP]["groups"]


def test_a_verdict_on_one_training_says_so_itself(seen: dict[str, Any]) -> None:
    said = [verdict for section in seen.values() for verdict in section["verdicts"]]
    assert said.count("undecided (one seed)") >= 3
    assert not {"better", "worse"} & set(said)
