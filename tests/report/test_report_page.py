"""The report as a whole: byte-stable, self-contained, escaped; and each text format."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import report_fixture

from detrbench import yaml12
from detrbench.errors import UsageError
from detrbench.report import FORMATS, formats, render, sections, write
from detrbench.results.store import ResultsStore

HOSTILE = """</style></script><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}"'$x_{$|\\end{table}%"""
VOID = {"meta", "link", "img", "input", "br", "hr"}


class Structure(HTMLParser):
    """Checks that tags nest and collects what tests ask about."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.scripts = 0
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.scripts += tag == "script"
        self.ids += [str(values["id"])] if "id" in values else []
        self.links += [str(v) for k, v in attrs if k in ("href", "src")]
        assert not [k for k in values if k.startswith("on")], values
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(html: str) -> Structure:
    structure = Structure()
    structure.feed(html)
    assert structure.open == []
    return structure


def poison(root: Path) -> None:
    """Puts markup wherever a user's text can come from."""
    for path in root.glob("*/*/suite.yaml"):
        suite = yaml12.load(path).value
        path.write_text(yaml12.dump({**suite, "title": HOSTILE, "description": HOSTILE}))
    for number, path in enumerate(sorted(root.glob("*/*/cells/*/cell.yaml"))):
        cell = yaml12.load(path).value
        cell |= {"id": f"{HOSTILE}{number}", "model": HOSTILE, "row": None}
        cell["complexity_options"] = {HOSTILE: HOSTILE, "keep_ratio": HOSTILE + str(number)}
        path.write_text(yaml12.dump(cell))
        status = json.loads((path.parent / "status.json").read_text())
        for entry in status["measures"].values():
            entry["why"] = HOSTILE
        (path.parent / "status.json").write_text(json.dumps(status))
        for record in path.parent.glob("*y.json"):
            record.write_text(record.read_text().replace("Fixture CPU", "<script>alert(3)</script>"))


def test_page_is_self_contained_and_well_formed(results: Path) -> None:
    html = render(results)
    structure = parsed(html)
    assert len(structure.ids) == len(set(structure.ids))
    assert all(link.startswith("#") or link == "data:," for link in structure.links), structure.links
    assert {link[1:] for link in structure.links if link.startswith("#")} <= set(structure.ids)
    assert not re.findall(r"url\((?!#)|@import|https?://(?!www\.w3\.org)", html)
    assert structure.scripts == 1
    for phrase in ("not built yet", "not measured: no checkpoint given", "smoke scale: shapes 128 px", "Fixture CPU"):
        assert phrase in html


@pytest.mark.usefixtures("undrawn")
def test_the_headline_comes_first_and_what_was_measured_apart_has_a_banner(results: Path) -> None:
    html = render(results)
    order = re.findall(r'<section id="([^"]+)"', html)
    sections = ["focus_table6_keep_ratio-smoke", "quickstart-smoke"]
    assert order == ["headline", "measured", *sections, "all", "counts", "overview", "environment"]
    headline, measured = (html.index(f'<section id="{name}"') for name in ("headline", "measured"))
    first = html.index("generated images, 128 px: not COCO")
    assert first < headline  # the scale is said before any figure
    assert "smoke scale: shapes 128 px" not in html[headline:measured]
    suite = html[
        html.index('<section id="focus_table6_keep_ratio-smoke"') : html.index('<section id="quickstart-smoke"')
    ]
    assert suite.index('class="banner"') < suite.index("<table")
    assert "not COCO" in suite[suite.index("<table") :]  # the block's own heading


def test_equal_results_give_equal_bytes(results: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    folders = sorted(results.rglob("*"))
    random.Random(1).shuffle(folders)  # another order of creation
    for path in folders:
        if path.is_file():
            target = copy / path.relative_to(results)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    page = render(results)
    assert render(copy) == page
    for format in set(FORMATS) - {"html"}:
        assert render(results, None, format) == render(copy, None, format), format


def test_hostile_text_stays_text(results: Path) -> None:
    poison(results)
    html = render(results)
    structure = parsed(html)
    assert structure.scripts == 1
    assert "<img" not in html
    assert "<script>alert" not in html
    assert "{{7*7}}" in html
    assert len(structure.ids) == len(set(structure.ids))
    for format in FORMATS:
        assert render(results, None, format)
    assert "<script>" not in render(results, None, "md").replace("\\<", "")
    assert r"\end{table}%" not in render(results, None, "latex")


def test_drawings(results: Path) -> None:
    drawings = re.findall(r'<svg class="plot".*?</svg>', render(results), re.DOTALL)
    assert len(drawings) == 9 + 3  # of the two suites, and over all: published AP, AP of each condition
    for drawing in drawings:
        assert len(drawing) < 40_000
        assert 'role="img"' in drawing
        assert "aria-label=" in drawing
        assert "<title>" in drawing
        assert "DejaVu" not in drawing
        assert not re.search(r"#0[123]0", drawing)


@pytest.mark.full
def test_five_tables_stay_small(tmp_path: Path) -> None:
    names = [
        "focus_table3_correlation",
        "focus_table6_keep_ratio",
        "focus_table11_dual_attention",
        "lite_table5",
        "dac_figure3",
    ]
    assert len(render(report_fixture.write_shipped(tmp_path, "smoke", names))) < 1_500_000


def test_csv_has_one_line_a_row(results: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(render(results, None, "csv"))))
    assert len(rows) == 4 + 15
    row = next(row for row in rows if row["id"] == "sparse-0.1" and row["suite"] == "focus_table6_keep_ratio")
    assert (row["gflops.published"], row["gflops.own"], row["AP.published"]) == ("105", "105.4", "45.3")
    assert float(row["AP.measured_low"]) < float(row["AP.measured"]) < float(row["AP.measured_high"])
    assert next(row for row in rows if row["id"] == "focus-0.1")["status"] == "not built yet"


def test_json_carries_values_and_notes(results: Path) -> None:
    document = json.loads(render(results, ["focus_table6_keep_ratio"], "json"))
    assert document["schema"] == 1
    (suite,) = document["suites"]
    assert suite["published"] == "focus_detr/table6"
    rows = {row["id"]: row for row in suite["tables"][0]["rows"]}
    assert rows["sparse-0.2"]["cells"]["gflops.published"]["value"] == 113
    assert rows["sparse-0.4"]["cells"]["AP.measured"]["note"].startswith("not measured")


def test_latex_is_balanced(results: Path) -> None:
    text = render(results, None, "latex")
    tables = sum(len(formats.all_tables(section)) for section in sections.read(ResultsStore(results)))
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == tables + 2
    names = re.findall(r"\\label\{(.*?)\}", text)
    assert len(names) == len(set(names)) == tables + 2
    for block in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        for line in block[1].splitlines():
            if line.rstrip().endswith(r"\\") and "multicolumn" not in line:
                assert len(re.findall(r"(?<!\\)&", line)) == len(block[0]) - 1, line
    assert re.sub(r"\\[{}]", "", text).count("{") == re.sub(r"\\[{}]", "", text).count("}")
    assert text.isascii()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_latex_compiles(results: Path, tmp_path: Path) -> None:
    poison(results)
    for number in range(12):  # more tables than LaTeX keeps waiting
        shutil.copytree(results / "focus_table6_keep_ratio", results / f"focus_table6_keep_ratio_{number}")
    head = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs,graphicx}\begin{document}"
    (tmp_path / "t.tex").write_text(head + render(results, None, "latex") + r"\end{document}")
    subprocess.run(["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_markdown_tables_are_rectangular(results: Path) -> None:
    lines = [line for line in render(results, None, "md").splitlines() if line.startswith("|")]
    assert lines
    blocks = re.split(r"\n\n", render(results, None, "md"))
    for block in (b for b in blocks if b.startswith("|")):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_empty_results(tmp_path: Path) -> None:
    assert "detrbench run quickstart" in render(tmp_path / "none")
    for format in FORMATS:
        render(tmp_path / "none", None, format)


def test_unknown_names(results: Path) -> None:
    with pytest.raises(UsageError, match="quickstat") as caught:
        render(results, ["quickstat"])
    assert "quickstart" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="unknown format"):
        render(results, None, "pdf")


@pytest.mark.usefixtures("undrawn")
def test_truncated_files_are_told_and_left_out(results: Path, tmp_path: Path) -> None:
    path = next(results.glob("quickstart/smoke/cells/sparse-0.1-*/accuracy.json"))
    path.write_text(path.read_text()[:50])
    warnings: list[str] = []
    (output,) = write(results, tmp_path / "out" / "report.html", warn=warnings.append)
    assert output.read_text().startswith("<!doctype html>")
    assert [str(path) in warning for warning in warnings] == [True]
