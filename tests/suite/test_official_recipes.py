"""Every published row is trained as the official code says, which stands in recipes.yaml, each value with its line."""

from __future__ import annotations

import functools
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import shipped_suites

from detrbench import models, yaml12
from detrbench.suite import loading as suites
from detrbench.suite.cells import Cell

FILE = Path(__file__).parents[1] / "reference" / "official" / "recipes.yaml"
SAID = yaml12.load(FILE).value


@functools.cache
def cells() -> dict[str, Cell]:
    """Rows that may be trained at the papers' scale: not those that are only counted, or from elsewhere."""
    found = {}
    for name in suites.names():
        suite = shipped_suites.load(name).suite
        if "paper" in suite.scales and suite.measure != ["complexity"]:
            found |= {f"{name}/{cell.id}": cell for cell in shipped_suites.cells(name, "paper") if cell.is_ours}
    return found


def rule_of(row: str) -> str | None:
    """The recipe of a row, or why none is published; None where nothing is said of it."""
    return next((rule for pattern, rule in SAID["rows"] if fnmatchcase(row, pattern)), None)


@functools.cache
def recipe(name: str) -> dict[str, Any]:
    """What an official recipe says, each key once."""
    said = dict(SAID["recipes"][name])
    base, without = said.pop("like", None), said.pop("without", [])
    inherited = recipe(base) if base else {}
    return {key: value for key, value in inherited.items() if key not in without} | {k: v[0] for k, v in said.items()}


def ours(cell: Cell) -> dict[str, Any]:
    """Recipe, data, sizes and the detector's options."""
    return {**models.resolve(str(cell.model), cell.options).options, **cell.settings.resolved()}


def test_every_row_has_its_official_recipe() -> None:
    rows = [row for row in cells() if rule_of(row) in SAID["recipes"]]
    assert len(rows) > 100
    for row in rows:
        said, found = recipe(str(rule_of(row))), ours(cells()[row])
        assert {key: found[key] for key in said} == said, row


def test_of_every_row_it_is_known_what_trained_it() -> None:
    assert [row for row in cells() if rule_of(row) is None] == []
    unused = set(SAID["recipes"]) - {rule_of(row) for row in cells()}
    assert unused <= {said.get("like") for said in SAID["recipes"].values()}  # what others build on
    first = {next(i for i, (pattern, _) in enumerate(SAID["rows"]) if fnmatchcase(row, pattern)) for row in cells()}
    assert [SAID["rows"][i] for i in range(len(SAID["rows"])) if i not in first] == []


def test_every_value_says_where_it_stands() -> None:
    for name, said in SAID["recipes"].items():
        for key, value in said.items():
            if key not in ("like", "without"):
                assert len(value) == 2, (name, key)
                assert value[1].startswith((*(f"{code} " for code in SAID["code"]), "arXiv", "the same")), (name, key)


def test_released_weights_were_trained_by_the_recipe_of_their_row() -> None:
    """A row that released weights stand for has an official recipe."""
    assert [row for row, cell in cells().items() if cell.official and rule_of(row) not in SAID["recipes"]] == []
