"""The report in a real browser: it sorts, filters and shows figures on hover, fits a phone, and can be read."""

from __future__ import annotations

import functools
import html as markup
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import report_fixture
from browser import CHROMIUM, Browser
from pypdf import PdfReader

from detrbench.report import render

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine (Debian: apt-get install chromium)")

# Runs in the page after its own script; leaves what it saw as JSON in the document.
PROBE = r"""
const seen = { errors };
const body = document.querySelector("#focus_table6_keep_ratio-smoke table.sortable").tBodies[0];
const order = () => [...body.rows].filter((row) => !row.hidden).map((row) => row.dataset.row);
const heading = [...body.parentNode.querySelectorAll(".columns th")].find((th) => th.textContent === "Keep ratio");
const button = heading.querySelector("button");
button.focus();
seen.focused = document.activeElement === button;
seen.before = order();
button.click(); seen.ascending = order(); seen.ariaAscending = heading.getAttribute("aria-sort");
button.click(); seen.descending = order(); seen.ariaDescending = heading.getAttribute("aria-sort");
button.click(); seen.after = order(); seen.ariaAfter = heading.getAttribute("aria-sort");
const input = document.querySelector("#focus_table6_keep_ratio-smoke .filter input");
input.value = "focus not built"; input.dispatchEvent(new Event("input"));
seen.filtered = order(); seen.count = input.nextSibling.textContent;
input.value = ""; input.dispatchEvent(new Event("input"));
const tip = document.querySelector("[role=tooltip]");
const point = document.querySelector("#focus_table6_keep_ratio-smoke .point[data-row='sparse-0.1']");
const over = { bubbles: true, clientX: 40, clientY: 40 };
point.dispatchEvent(new PointerEvent("pointerover", over));
seen.tip = tip.hidden ? null : tip.textContent;
seen.lit = [...body.rows].filter((row) => row.classList.contains("lit")).map((row) => row.dataset.row);
point.dispatchEvent(new PointerEvent("pointerout", over));
seen.tipAfter = tip.hidden;
const all = document.querySelector("#all table.sortable");
const ids = () => [...all.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.dataset.row);
const totals = () => [...all.tBodies[0].rows].map((row) => Number(row.cells[2].textContent));
const total = [...all.querySelectorAll(".columns th")].find((th) => th.textContent === "total");
total.querySelector("button").click(); total.querySelector("button").click();
seen.totals = totals();
const words = document.querySelector("#all .filter input");
words.value = "tiny ratio=0.3"; words.dispatchEvent(new Event("input"));
seen.kept = ids();
words.value = ""; words.dispatchEvent(new Event("input"));
seen.hidden = document.querySelectorAll("[data-switch].off").length;
const first = document.querySelector("#focus_table6_keep_ratio-smoke .tools");
for (const box of first.querySelectorAll("label:not(.filter) input")) box.click();
seen.switched = first.nextElementSibling.querySelectorAll(".off").length;
seen.copied = {};
navigator.clipboard.writeText = (text) => { seen.last = text; return Promise.resolve(); };
for (const button of first.querySelectorAll("button")) { button.click(); seen.copied[button.textContent] = seen.last; }
seen.bars = [...all.querySelectorAll(".bar")].map((bar) => bar.getBoundingClientRect().height);
const named = (e) => (e.getAttribute("aria-label") ?? e.closest("label")?.textContent ?? e.textContent).trim();
seen.unnamed = [...document.querySelectorAll("button, input, a, summary, [role=region], [role=img]")]
  .filter((e) => !named(e)).map((e) => e.outerHTML.slice(0, 80));
seen.unreachable = [...document.querySelectorAll("button, input, select, a, summary, .scroll")]
  .filter((e) => e.tabIndex < 0).map((e) => e.outerHTML.slice(0, 80));
seen.unscoped = [...document.querySelectorAll("th:not([scope])")].length;
seen.captionless = [...document.querySelectorAll("table.sortable")]
  .filter((t) => !t.caption?.textContent.trim()).length;
seen.wide = [...document.querySelectorAll("table, figure")]
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.textContent.trim().slice(0, 60));
seen.width = [document.documentElement.scrollWidth, innerWidth];
seen.requests = performance.getEntriesByType("resource").map((entry) => entry.name);
seen.dark = matchMedia("(prefers-color-scheme: dark)").matches;

document.querySelectorAll("details").forEach((part) => (part.open = true));
const labels = [...document.querySelectorAll(".plot")].map((plot) => [...plot.querySelectorAll(".label")]);
seen.labels = labels.flat().length;
const boxed = (e) => e.getBoundingClientRect();
const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
seen.overlaps = labels.flatMap((mine) => mine.flatMap((one, i) => mine.slice(0, i)
  .filter((other) => meet(boxed(one), boxed(other))).map((other) => `${one.textContent} | ${other.textContent}`)));
seen.dead = [...document.querySelectorAll("figure[data-chart] .legend [data-method]")]
  .filter((item) => !item.closest("figure").querySelector(`.point[data-method="${item.dataset.method}"]`))
  .map((item) => item.textContent);
const channels = (text) => text.match(/[\d.]+/g).map(Number);
const luminance = (rgb) => rgb.slice(0, 3)
  .map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const paper = luminance(channels(getComputedStyle(document.body).backgroundColor));
const contrast = (colour) => {
  const ink = luminance(channels(colour));
  return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
};
const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
const inked = [...document.querySelectorAll("body *")]
  .filter((e) => e !== tip && hasText(e) && e.getClientRects().length);
seen.inked = inked.length;
seen.faint = inked
  .map((e) => [contrast(getComputedStyle(e)[e instanceof SVGElement ? "fill" : "color"]), e.textContent.slice(0, 40)])
  .filter(([ratio]) => ratio < 4.5);
// Marks, swatches and bars: what they are painted with, and the fainter of two where a mark has a rim.
const painted = (e) => ["fill", "stroke"].map((how) => getComputedStyle(e)[how])
  .filter((colour) => !["none", getComputedStyle(document.body).backgroundColor].includes(colour));
const drawn = ".point path, .point use, .curve path, .bar path, .swatch path, .legend svg *";
const shapes = [...document.querySelectorAll(drawn)]
  .map((e) => [painted(e).map(contrast), e.closest("[data-method], .bar, .swatch, .legend li")?.className.baseVal])
  .filter(([ratios]) => ratios.length);
seen.shapes = shapes.length;
seen.pale = shapes.filter(([ratios]) => Math.max(...ratios) < 3);
const table = document.querySelector("#focus_table6_keep_ratio-smoke .scroll");
const groups = [...table.querySelectorAll(".groups th:not(.off)")].filter((e) => e.getClientRects().length);
seen.groupsInView = groups.map((group) => {  // each heading, while the columns under it are scrolled through
  table.scrollLeft = group.offsetLeft + group.offsetWidth / 2 - 40;
  const name = boxed(group.querySelector("span")), frame = boxed(table);
  return group.offsetWidth < 60 || (name.right > frame.left + 20 && name.left < frame.right);
});
table.scrollLeft = 0;
seen.fontSizes = Math.min(...[...document.querySelectorAll(".plot text")].map((e) => {
  const box = e.ownerSVGElement;
  return parseFloat(getComputedStyle(e).fontSize) * box.getBoundingClientRect().width / box.viewBox.baseVal.width;
}));
const result = document.createElement("pre");
result.id = "probe"; result.textContent = JSON.stringify(seen);
document.body.append(result);
"""


# Uses the headline as a reader does; every step leaves what it saw.
CHART = r"""
const seen = { errors };
const figure = document.querySelector("#headline figure");
const canvas = figure.querySelector(".canvas");
const [across, upwards] = figure.querySelectorAll(".controls select");
const log = figure.querySelector(".controls input");
const points = () => [...canvas.querySelectorAll(".point:not(.gone)")];
const pick = (field, value) => { field.value = value; field.dispatchEvent(new Event("change")); };
const still = canvas.firstElementChild;
seen.choices = [...across.options].map((o) => o.value).concat([...upwards.options].map((o) => o.value));
seen.still = points().length;
seen.tabbable = points().filter((point) => point.tabIndex === 0).length;
points()[0].focus();
seen.tip = document.querySelector("[role=tooltip]").textContent;
const walked = new Set([document.activeElement]);
for (const key of ["ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown"]) {
  for (let i = 0; i < 40; i += 1) {
    document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    walked.add(document.activeElement);
  }
}
seen.walked = walked.size;
pick(across, "gflops_published");
seen.redrawn = canvas.firstElementChild !== still;
seen.published = points().length;
seen.dead = [...figure.querySelectorAll(".legend [data-method]")].filter((item) => !item.hidden)
  .filter((item) => !canvas.querySelector(`.point[data-method="${item.dataset.method}"]`)).length;
seen.address = location.hash;
log.checked = true; log.dispatchEvent(new Event("change"));
seen.log = canvas.querySelector("svg").textContent.includes("logarithmic");
const boxed = (e) => e.getBoundingClientRect();
const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
seen.overlaps = [];
for (const x of across.options) for (const y of upwards.options) {
  pick(across, x.value); pick(upwards, y.value);
  const labels = [...canvas.querySelectorAll(".label")];
  seen.overlaps.push(...labels.flatMap((one, i) => labels.slice(0, i).filter((other) => meet(boxed(one), boxed(other)))
    .map((other) => `${x.value} ${y.value}: ${one.textContent} | ${other.textContent}`)));
}
log.checked = false; log.dispatchEvent(new Event("change"));
pick(across, "gflops"); pick(upwards, "AP");
seen.restored = canvas.firstElementChild === still;
const focus = [...figure.querySelectorAll(".legend [data-method] button")].find((b) => b.textContent.includes("Focus"));
focus.click();
seen.only = [...new Set(points().map((point) => point.dataset.method))];
seen.pressed = focus.getAttribute("aria-pressed");
seen.onlyAddress = location.hash;
focus.click();
focus.parentNode.dispatchEvent(new PointerEvent("pointerenter"));
seen.dim = [...new Set([...canvas.querySelectorAll(".point.dim")].map((point) => point.dataset.method))];
focus.parentNode.dispatchEvent(new PointerEvent("pointerleave"));
seen.bright = canvas.querySelectorAll(".dim").length;
const result = document.createElement("pre");
result.id = "probe"; result.textContent = JSON.stringify(seen);
document.body.append(result);
"""


@functools.cache
def look(
    browser: Browser,
    page: Path,
    frame: int | None = None,
    paper: bool = False,
    dark: bool = False,
    probe: str = PROBE,
    at: str = "",
) -> dict[str, Any]:
    """Opens a page with a probe in it and returns what the probe saw.

    Args:
        browser: in which to open it.
        page: the report.
        frame: width of the frame in which the page is shown.
        paper: lay it out as for print.
        dark: as a reader who likes it dark.
        probe: a script that leaves an element with the id `probe`.
        at: what stands in the address after #.
    """
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())  # it would stop the probe
    if paper:
        text = text.replace("@media print", "@media all")
    text = text.replace("<head>", "<head><script>const errors = []; onerror = (e) => errors.push(e)</script>", 1)
    text = text.replace("</body>", f"<script>{probe}</script></body>")
    if frame:
        tell = "<script>parent.document.body.append(document.querySelector('#probe'))</script></body>"
        text = text.replace("</body>", tell)
        text = (
            f'<body><iframe width={frame} height=800 style="border:0" srcdoc="{markup.escape(text)}"></iframe></body>'
        )
    probed = page.with_name("probed.html")
    probed.write_text(text)
    browser.open(f"{probed.as_uri()}#{at}", dark=dark)
    seen: dict[str, Any] = json.loads(browser.value("document.querySelector('#probe').textContent"))
    return seen


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    results = report_fixture.write_quickstart(report_fixture.write_table6(folder / "results"))
    path = folder / "report.html"
    path.write_text(render(results))
    return path


def test_the_page_runs_its_own_script_and_no_other(browser: Browser, page: Path, tmp_path: Path) -> None:
    text = page.read_text()
    forged = tmp_path / "forged.html"
    foreign = "<img src='data:,' onerror='document.title = 1'><script>document.title = 2</script></main>"
    forged.write_text(text.replace("</main>", foreign).replace("<title>detrbench report", "<title>as it was"))
    browser.open(forged.as_uri())
    dom = browser.value("document.documentElement.outerHTML")
    assert "<title>as it was</title>" in dom
    body = text.partition("<body>")[2]
    assert dom.partition("<body>")[2].count("<button") > body.count("<button")  # which its own script adds


def test_sort_filter_hover(browser: Browser, page: Path) -> None:
    seen = look(browser, page)
    assert seen["errors"] == []
    assert seen["requests"] == []
    assert seen["focused"]
    assert seen["ascending"][:3] == ["sparse-0.1", "sparse-dino-0.1", "focus-0.1"]
    assert seen["descending"][:3] == ["sparse-0.5", "sparse-dino-0.5", "focus-0.5"]
    assert (seen["ariaAscending"], seen["ariaDescending"], seen["ariaAfter"]) == ("ascending", "descending", None)
    assert seen["after"] == seen["before"]
    assert seen["filtered"] == [f"focus-0.{i}" for i in range(1, 6)]
    assert seen["count"] == "5 of 15 rows"
    assert "AP" in seen["tip"]
    assert seen["lit"] == ["sparse-0.1"]
    assert seen["tipAfter"]
    assert seen["totals"] == sorted(seen["totals"], reverse=True)
    assert len(set(seen["totals"])) > 3
    assert seen["kept"] == ["sparse_detr_r50 backbone=tiny keep_ratio=0.3"]
    assert min(seen["bars"]) > 3


def test_labels_do_not_overlap_and_legends_have_points(browser: Browser, page: Path) -> None:
    for frame in (None, 390):
        seen = look(browser, page, frame=frame)
        assert seen["labels"] >= 8
        assert seen["overlaps"] == []
        assert seen["dead"] == []


def test_ours_is_switched_on(browser: Browser, page: Path) -> None:
    seen = look(browser, page)
    assert seen["hidden"] > 30
    assert seen["switched"] == 0
    assert seen["copied"]["LaTeX"].startswith("% needs \\usepackage{booktabs}\n\\begin{tabular}{l")
    assert "common" in seen["copied"]["CSV"].splitlines()[0]
    lines = seen["copied"]["Markdown"].splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == 15 + 2
    assert any("| 105 |" in line for line in lines)


def test_everything_has_a_name_and_can_be_reached_by_keyboard(browser: Browser, page: Path) -> None:
    seen = look(browser, page)
    assert seen["unnamed"] == []
    assert seen["unreachable"] == []
    assert seen["unscoped"] == 0
    assert seen["captionless"] == 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out(browser: Browser, page: Path, dark: bool) -> None:
    seen = look(browser, page, dark=dark)
    assert seen["dark"] is dark
    assert seen["inked"] > 500
    assert seen["faint"] == []
    assert seen["shapes"] > 60
    assert seen["pale"] == []


def test_fits_a_phone(browser: Browser, page: Path) -> None:
    seen = look(browser, page, frame=390)
    content, window = seen["width"]
    assert window == 390
    assert content <= window
    assert seen["errors"] == []
    assert seen["fontSizes"] >= 8  # CSS pixels, as drawn
    assert len(seen["groupsInView"]) >= 3
    assert all(seen["groupsInView"])


def test_fits_paper(browser: Browser, page: Path) -> None:
    seen = look(browser, page, frame=1032, paper=True)  # A4 across, less its margins
    assert seen["wide"] == []
    assert seen["errors"] == []


def test_prints(browser: Browser, page: Path) -> None:
    browser.open(page.as_uri())
    pages = PdfReader(io.BytesIO(browser.printed())).pages
    assert len(pages) >= 5
    assert {tuple(round(float(x)) for x in page.mediabox) for page in pages} == {(0, 0, 842, 595)}


def test_printed_tables_go_on_under_their_headings(browser: Browser, headline: Path) -> None:
    browser.open(headline.as_uri())
    pages = [page.extract_text() for page in PdfReader(io.BytesIO(browser.printed())).pages]
    assert all(len(text) > 60 for text in pages)  # none is blank
    assert len(pages) <= 16
    rows = [text for text in pages if "published only" in text]
    assert len(rows) > 3  # tables that go on over the page
    for text in rows:
        assert "Detector" in text
        assert "published" in text.replace("published only", "")


def test_readable_without_javascript(page: Path) -> None:
    """Everything that the tables say is in the file before any script runs."""
    text = re.sub(r"<script>.*?</script>", "", page.read_text(), flags=re.DOTALL)
    for phrase in ("Sparse DETR", "105.4", "not built yet", "doubtful", "AP by training epoch", "<title>sparse-0.1"):
        assert phrase in text


@pytest.fixture(scope="module")
def headline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("headline")
    root = report_fixture.write_shipped(
        folder / "results", "paper", ["focus_figure7_ap_gflops", "focus_table1_main", "lite_table3"]
    )
    path = folder / "report.html"
    path.write_text(render(root))
    return path


def test_the_headline_is_used(browser: Browser, headline: Path) -> None:
    seen = look(browser, headline, probe=CHART)
    assert seen["errors"] == []
    assert {"gflops", "gflops_published", "params", "AP", "AP50", "APS"} <= set(seen["choices"])
    assert seen["tabbable"] == 1
    assert seen["walked"] > seen["still"] / 3
    assert "published GFLOPs" in seen["tip"]
    assert "epochs" in seen["tip"]
    assert seen["redrawn"]
    assert seen["published"] > 10
    assert seen["dead"] == 0
    assert seen["address"] == "#chart=headline&x=gflops_published"
    assert seen["log"]
    assert seen["overlaps"] == []
    assert seen["restored"]
    assert (seen["only"], seen["pressed"]) == (["Focus-DETR"], "true")
    assert seen["onlyAddress"] == "#chart=headline&only=Focus-DETR"
    assert "Focus-DETR" not in seen["dim"]
    assert len(seen["dim"]) > 2
    assert seen["bright"] == 0


def test_the_headline_opens_as_its_address_says(browser: Browser, headline: Path) -> None:
    probe = (
        CHART.partition("const still =")[0]
        + """
    seen.x = across.value; seen.log = log.checked; seen.only = [...new Set(points().map((p) => p.dataset.method))];
    const result = document.createElement("pre");
    result.id = "probe"; result.textContent = JSON.stringify(seen);
    document.body.append(result);
    """
    )
    at = "chart=headline&x=params&log=true&only=Sparse+DETR"
    seen = look(browser, headline, probe=probe, at=at)
    assert (seen["x"], seen["log"], seen["only"]) == ("params", True, ["Sparse DETR"])
    assert look(browser, headline, probe=probe, at="chart=headline&x=nothing")["x"] == "gflops"
