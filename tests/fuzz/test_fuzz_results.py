"""A results folder of which somebody broke a file: the others are shown as they are, and nothing wrong beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import wholes
import yaml
from answers import Case, answer
from conftest import Fuzz
from hypothesis import strategies as st
from spoiling import damaged, json_file, spoiled, yaml_text

COMMANDS = [
    ("report", "--format", "json"),
    ("report", "--format", "md"),
    ("report", "--format", "csv"),
    ("report", "--format", "latex"),
    ("report", "-o", "page.html"),
    ("list", "results"),
    ("list", "results", "--json"),
    ("compare", "demo:deformable", "demo:sparse"),
    ("compare", "results", "results", "--format", "csv"),
    ("check", "demo.yaml", "--retries", "0", "--junit", "check.xml", "--github"),
    ("run", "demo.yaml", "--dry-run"),
    ("figure", "ap_gflops", "-o", "figure.svg"),
    ("figure", "ap_latency", "-o", "figure.png"),
]


@st.composite
def broken(draw: st.DrawFn) -> tuple[str, wholes.Files]:
    """(place, files): the folder with what lies at that place broken."""
    files = dict(wholes.results())
    place = draw(st.sampled_from([name for name in files if name.startswith("results/")]))
    content = files[place]
    if place.endswith(".json"):
        files[place] = draw(json_file(json.loads(content)))
    elif place.endswith(".yaml"):
        files[place] = draw(yaml_text(yaml.safe_load(content)))
    else:
        files[place] = draw(damaged(content))
    return place, files


def the_rest_is_shown(case: tuple[tuple[str, ...], tuple[str, wholes.Files]]) -> None:
    """Every command answers, and the cell whose files are whole keeps its figures."""
    arguments, (place, files) = case
    with answer(Case(arguments, files)) as found:
        assert "NaN" not in found.out
        assert "Infinity" not in found.out
        if arguments[-1] == "json" and found.code == 0:
            shown = {row["id"]: row["cells"] for row in _rows(json.loads(found.out))}
            for cell, gflops in (("deformable", 100.0), ("sparse", 60.0)):
                figure = shown.get(cell, {}).get("gflops.common", {}).get("value")
                assert f"/{cell}-" in place or place.endswith("suite.yaml") or figure in (None, gflops), (cell, figure)


def _rows(document: Any) -> Iterator[dict[str, Any]]:
    """The rows of every table of a report as JSON."""
    for suite in document["suites"]:
        for table in suite["tables"]:
            yield from table["rows"]


def test_results(fuzz: Fuzz) -> None:
    fuzz(st.tuples(st.sampled_from(COMMANDS), broken()), the_rest_is_shown)


def test_baselines(fuzz: Fuzz) -> None:
    """A baseline that somebody broke is refused, or read as it stands."""
    whole = dict(wholes.results())
    suite = yaml.safe_load(whole["demo.yaml"])
    whole["demo.yaml"] = yaml.safe_dump({**suite, "budgets": {"same": "gflops == baseline"}}).encode()
    with answer(Case(("check", "demo.yaml", "--update-baseline", "first"), whole)) as found:
        (path,) = (found.folder / "baselines").rglob("*.yaml")
        place, content = path.relative_to(found.folder).as_posix(), yaml.safe_load(path.read_text())
    fuzz(
        spoiled(content).map(lambda c: yaml.safe_dump(c).encode("utf-8", "backslashreplace")) | yaml_text(content),
        lambda text: _checked({**whole, place: text}),
    )


def _checked(files: wholes.Files) -> None:
    with answer(Case(("check", "demo.yaml", "--retries", "0"), files)):
        pass
