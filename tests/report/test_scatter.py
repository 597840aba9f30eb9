"""The drawing of a chart: what is joined and named, that nothing overlaps, and the files for a paper."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import report_fixture
from browser import CHROMIUM, Browser

from detrbench.errors import EnvironmentLacking, UsageError
from detrbench.report import charts, overview, scatter, sections, svg, wording
from detrbench.report.charts import Chart
from detrbench.results.store import ResultsStore
from detrbench.suite import loading as suites

# Labels of one drawing that meet each other or a number at an axis, or that stand outside.
OVERLAPS = r"""
const boxed = (e) => e.getBoundingClientRect();
const meet = (a, b) => a.left < b.right - .5 && b.left < a.right - .5 && a.top < b.bottom - .5 && b.top < a.bottom - .5;
const found = [...document.querySelectorAll(".plot")].map((plot) => {
  const labels = [...plot.querySelectorAll(".label text")];
  const texts = [...plot.querySelectorAll("text")];
  const frame = boxed(plot);
  const bad = [];
  for (const label of labels) {
    for (const other of texts) {
      if (other !== label && meet(boxed(label), boxed(other))) bad.push(`${label.textContent} | ${other.textContent}`);
    }
    const box = boxed(label);
    const out = box.left < frame.left || box.right > frame.right + 1 || box.top < frame.top - 1;
    if (out) bad.push(`${label.textContent} outside`);
  }
  return { labels: labels.length, points: plot.querySelectorAll(".point").length, bad };
});
JSON.stringify(found);
"""


def overlaps(browser: Browser, made: list[Chart], folder: Path) -> list[dict[str, object]]:
    """What a browser sees of the labels of each chart."""
    drawn = "".join(f"<figure style='width: {1100 if c.wide else 560}px'>{scatter.drawing(c)}</figure>" for c in made)
    page = folder / "drawings.html"
    page.write_text(f"<style>{svg.STYLE_SHEET.read_text()}</style><body>{drawn}")
    browser.open(page.as_uri())
    seen: list[dict[str, object]] = json.loads(browser.value(OVERLAPS))
    return seen


def chart(root: Path, *names: str) -> Chart:
    made = charts.headline(sections.read(ResultsStore(report_fixture.write_shipped(root, "paper", list(names)))))
    assert made is not None
    return made


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")
@pytest.mark.parametrize("names", [
    ["focus_figure7_ap_gflops"],
    pytest.param(suites.names(), marks=pytest.mark.full),
], ids=["one", "all"])  # fmt: skip
def test_no_label_meets_another_or_an_axis(browser: Browser, tmp_path: Path, names: list[str]) -> None:
    made = []
    for scale in ("paper", "smoke"):
        found = sections.read(ResultsStore(report_fixture.write_shipped(tmp_path / scale, scale, names)))
        gathered = [charts.measured(section, f"all-{i}") for i, section in enumerate(overview.conditions(found))]
        every = [charts.headline(found), *gathered, *(c for section in found for c in charts.of_section(section))]
        made += [one for one in every if one is not None]
    seen = overlaps(browser, made, tmp_path)
    assert len(seen) == len(made) > 5
    assert all(one["labels"] for one in seen)
    assert [(c.key, one["bad"]) for c, one in zip(made, seen, strict=True) if one["bad"]] == []


def test_lines_join_sweeps_and_nothing_else(tmp_path: Path) -> None:
    drawn = scatter.drawing(chart(tmp_path / "swept", "focus_table6_keep_ratio"))
    assert sorted(re.findall(r'class="curve" data-method="([^"]+)"', drawn)) == [
        "Focus-DETR",
        "Sparse DETR",
        "Sparse DETR",
    ]
    assert drawn.count('class="point"') == 15
    assert 'class="curve"' not in scatter.drawing(chart(tmp_path / "not", "lite_table5"))


def test_a_frontier_for_each_length_of_training(tmp_path: Path) -> None:
    drawn = scatter.drawing(chart(tmp_path, "focus_table10_convergence", "lite_table5"))
    assert re.findall(r'class="steps" data-epochs="(\d+)"', drawn) == ["36"]
    assert ">36 epochs<" in drawn


@pytest.mark.parametrize("names", [
    ["focus_table6_keep_ratio", "focus_table1_main", "dac_table1", "lite_table4"],  # those of the README's figure
    pytest.param(suites.names(), marks=pytest.mark.full),
], ids=["readme", "all"])  # fmt: skip
def test_every_frontier_says_how_long_was_trained(tmp_path: Path, names: list[str]) -> None:
    """However many points, curves and names there are."""
    made = chart(tmp_path, *names)
    wanted = {f"{epochs} epochs" for epochs, _ in wording.lengths(made.shown, made.x, made.y)}
    scatter.write(made, tmp_path / "page.svg", "page")
    for drawn in (scatter.drawing(made), (tmp_path / "page.svg").read_text()):
        assert set(re.findall(r">(\d+ epochs)<", drawn)) == wanted >= {"12 epochs", "36 epochs", "50 epochs"}


def test_files_for_a_paper(tmp_path: Path) -> None:
    made = chart(tmp_path, "focus_table6_keep_ratio")
    for suffix, head in ((".pdf", b"%PDF"), (".png", b"\x89PNG"), (".svg", b"<?xml")):
        first, again = tmp_path / f"one{suffix}", tmp_path / "two" / f"one{suffix}"
        scatter.write(made, first, "column")
        scatter.write(made, again, "column")
        assert first.read_bytes().startswith(head)
        assert first.read_bytes() == again.read_bytes()
    text = (tmp_path / "one.svg").read_text()
    assert not re.search(r"#0[123]0[0-9a-f]{3}\b", text)  # no placeholder of the page's colours is left
    assert "#06635d" in text  # Focus-DETR in light
    for name in ("Sparse DETR", "Focus-DETR", "on DINO"):  # its own key: a paper has no page around it
        assert f">{name}<" in text
    width = re.search(r'width="([\d.]+)pt"', text)
    assert width
    assert float(width[1]) == pytest.approx(72 * scatter.WIDTHS["column"][0])
    with pytest.raises(UsageError, match="format of a figure"):
        scatter.write(made, tmp_path / "one.docx", "column")


@pytest.mark.skipif(shutil.which("xelatex") is not None, reason="LaTeX is there")
def test_pgf_without_latex_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacking, match="LaTeX") as caught:
        scatter.write(chart(tmp_path, "focus_table6_keep_ratio"), tmp_path / "one.pgf", "column")
    assert "texlive-xetex" in str(caught.value.hint)
    assert not (tmp_path / "one.pgf").exists()
