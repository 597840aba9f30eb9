"""The site: what is generated is complete and right, each page has its place, and it builds strictly, offline."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import detrbench
from detrbench import published, yaml12
from detrbench.suite import loading as suites
from detrbench.suite.schema import Scale

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
Site = Callable[[str], ModuleType]


def pages_in(nav: object) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [page for each in (nav.values() if isinstance(nav, dict) else nav) for page in pages_in(each)]  # type: ignore[attr-defined]


def test_every_page_stands_in_the_navigation_once(site: Site) -> None:
    build = site("build")
    nav = pages_in(yaml12.load(DOCS / "site" / "mkdocs.yml").value["nav"])
    assert sorted(nav) == sorted(build.place(file) for file in build.sources() if file.suffix == ".md")


def test_every_marker_is_filled_and_everything_generated_has_its_page(site: Site) -> None:
    build = site("build")
    pages = [file.read_text(encoding="utf-8") for file in build.sources() if file.suffix == ".md"]
    found = [name for text in pages for name in build.MARKER.findall(text)]
    assert sorted(found) == sorted(build.GENERATED)


def test_links_lead_to_pages_and_other_files_are_named(site: Site) -> None:
    build, page = site("build"), DOCS / "smoke" / "README.md"
    text = "[start](../../README.md#use) [map](../papers.md) [code](../../setup.py) `[a](b)` [out](https://a.b)"
    expected = "[start](../index.md#use) [map](../papers.md) code (`setup.py`) `[a](b)` [out](https://a.b)"
    assert build.relinked(text, page) == expected
    with pytest.raises(FileNotFoundError, match=r"no gone\.md"):
        build.relinked("[gone](gone.md)", page)


def test_every_key_of_a_suite_has_its_meaning(site: Site) -> None:
    suite_file = site("suite_file")
    for model in suite_file.MODELS:
        meaning = suite_file.meaning(model)
        assert [name for name in model.model_fields if len(meaning.get(name, "")) < 5] == [], model.__name__
    text = suite_file.keys()
    assert "| `num_val` | a whole number | `300` | images in each split. |" in text
    assert "| `seed` | a whole number from 0 to 9223372036854775807 | `0` | weights, order" in text
    assert "| `data_seed` | a whole number | `0` | another seed gives other images" in text
    assert "| `variants` | a list, each a [SuiteVariant](#suitevariant) | required |" in text
    assert "`shortest` | a whole number at least 32 and at most 16384 or null |" in text


def test_a_docstring_is_read_key_by_key(site: Site) -> None:
    class Record:
        """Words: not a key, for it is one line that stands alone.

        Attributes:
            first, second: both of them,
                and more: with a colon.
            third: it.

        That is all.
        """

    assert site("suite_file").described(Record) == {
        "first": "both of them, and more: with a colon.",
        "second": "both of them, and more: with a colon.",
        "third": "it.",
    }


def test_every_option_of_every_part_is_listed(site: Site) -> None:
    text = site("options_and_rules").options()
    assert "| `keep_ratios` | a list, each a number above 0 and at most 1 | `[0.5, 0.4, 0.3, 0.3, 0.2, 0.1]` |" in text
    assert "### `sparse_objectness`" in text
    assert "\n## Kind: `auxiliary_decoder`\n" in text


@pytest.mark.full
def test_every_published_table_is_mapped_to_its_suites(site: Site) -> None:
    text = site("papers").tables()
    for paper in published.papers():
        for table in published.tables_of(paper).values():
            assert f"| {table.caption} | {len(table.rows)} |" in text
    for name in suites.names():
        assert (suites.load(name).suite.published is None) or f"`{name}`" in text
    assert (
        "| Table 6 | Effect of the keep ratio | 15 | `focus_table6_keep_ratio` | 15 | `common`, `sparse_table1`" in text
    )
    assert "[paper](https://arxiv.org/abs/2307.12612)" in text


def test_what_is_not_reproduced_has_its_reason(site: Site) -> None:
    text = site("papers").not_reproduced()
    row = published.load("focus_detr/table1").select({"model": "DINO"})
    assert row.doubtful["gflops"] in text


@pytest.mark.full
def test_detectors_stand_beside_their_published_ap_and_counted_cost(site: Site) -> None:
    detectors = site("detectors")
    found = {each.model: each for each in detectors.detectors()}
    focus, counted = found["focus_detr_r50"], yaml12.load(detectors.BASELINE).value["cells"]["focus_detr_r50"]
    assert focus.gflops == counted["gflops"]["common"]["value"]
    assert (focus.published[12].ap, focus.published[12].source) == (48.8, "Focus-DETR, Table 10")
    assert focus.published[36].ap == 50.4
    assert found["sparse_detr_r50"].published[50].ap == 46.0, "that of keep ratio 0.3, not the best of all"
    assert found["lite_dino_r50"].published[36].ap == 50.4, "that with key-aware attention and three high levels"
    assert len(found) == len(suites.load("complexity").suite.variants)


def test_bold_is_what_no_other_detector_has_for_as_little(site: Site) -> None:
    made = site("detectors")

    def detector(gflops: float, ap: float) -> object:
        return made.Detector("m", "n", gflops, 40.0, {12: made.Printed(ap, "")})

    found = [detector(100, 45.0), detector(120, 45.0), detector(150, 44.0), detector(200, 50.0), detector(200, 49.0)]
    assert [made.is_beaten(each, 12, found) for each in found] == [False, True, True, False, True]


def test_a_cell_may_hold_what_a_table_is_made_of(site: Site) -> None:
    assert site("tables").table(("a", "b:"), [["x|y", "1\n2"]]) == "| a | b |\n| --- | ---: |\n| x\\|y | 1 2 |"


def test_the_citation_says_what_it_must() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert cited["version"] == detrbench.__version__
    titles = {published.load(table).title for table in ("sparse_detr/table1", "focus_detr/table1", "lite_detr/table1")}
    assert titles <= {reference["title"] for reference in cited["references"]}


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.citation-file-format", "CITATION.cff"),
        ("vendor.github-workflows", "docs/budgets-workflow.yml"),
    ],
)
def test_files_for_others_fit_their_schemas(schema: str, file: str) -> None:
    if importlib.util.find_spec("check_jsonschema") is None:
        pytest.skip("check-jsonschema is not installed: pip install '.[docs]'")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, "--default-filetype", "yaml", file]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.full
def test_the_site_builds_strictly_and_asks_nothing_of_any_network() -> None:
    if importlib.util.find_spec("zensical") is None:
        pytest.skip("zensical is not installed: pip install '.[docs]'")
    done = subprocess.run(
        [sys.executable, DOCS / "site" / "build.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    built = list((ROOT / "build" / "site").rglob("*.html"))
    assert len(built) > 15
    for page in built:
        text = page.read_text(encoding="utf-8")
        asked = re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=\"?(https?:[^\s\">]+)", text)
        asked += re.findall(r"<link[^>]*rel=\"?(?:stylesheet|preconnect|preload)[^>]*href=\"?(https?:[^\s\">]+)", text)
        assert asked == [], page
        assert "<!-- generated:" not in text, page
    assert "DetectorOutput" in (ROOT / "build" / "site" / "api.html").read_text(encoding="utf-8")


def test_a_scale_is_described_by_what_it_is_made_of(site: Site) -> None:
    meaning = site("suite_file").meaning(Scale)
    assert meaning["epochs"].startswith("passes over the training images")
    assert meaning["shortest"].startswith("pixels of the short side")
