"""How a section's detectors were trained: every value of their recipes, with who said it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from detrbench.report import labels
from detrbench.report.columns import EMPTY, Column, TableCell
from detrbench.report.entries import Record, mapping
from detrbench.report.sections import Section
from detrbench.report.tables import Row, Table
from detrbench.results.store import CellResult

ALL = "all"
MOST_NAMES = 12  # of rows that share a value, before they are counted
_COLUMNS = tuple(
    Column(f"recipe.{key}", "", label, lambda _: EMPTY, numeric=False)
    for key, label in (("value", "Value"), ("from", "From"), ("rows", "Rows"))
)


def table(section: Section) -> Table:
    """A line a setting; several where rows differ in its value or in who says it."""
    recipes = {entry.id: _of_trainings(entry.cell) for entry in section.entries if entry.cell is not None}
    trained = {name: recipe for name, recipe in recipes.items() if recipe}
    settings = dict.fromkeys(setting for recipe in trained.values() for setting in recipe)
    rows = tuple(row for setting in settings for row in _lines(setting, trained))
    return Table("recipe", f"Recipes, {section.condition}", _COLUMNS, rows, first="Setting")


def _of_trainings(cell: CellResult) -> Record:
    """The recipe of a cell, with the seeds of all of its trainings."""
    recipe = _whole(cell.cell.get("recipe"))
    if not cell.further or "seed" not in recipe:
        return recipe
    seeds = [mapping(each.cell.get("resolved")).get("seed") for each in cell.trainings]
    return {**recipe, "seed": [seeds, recipe["seed"][1]]}


def _whole(recipe: Any) -> Record:
    """The settings of a recipe that say value and source, as all do that were written here."""
    pairs = mapping(recipe).items()
    return {
        name: said for name, said in pairs if isinstance(said, list) and len(said) == 2 and isinstance(said[1], str)
    }


def _lines(setting: str, trained: Mapping[str, Record]) -> Iterator[Row]:
    said: dict[str, list[str]] = {}
    for name, recipe in trained.items():
        if setting in recipe:
            said.setdefault(json.dumps(recipe[setting]), []).append(name)
    for what, names in said.items():
        value, source = json.loads(what)
        rows = ALL if len(names) == len(trained) else _listed(names)
        yield Row("", setting, "", 0, True, None, tuple(map(_cell, (_shown(value), source, rows))))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _shown(value: Any) -> str:
    """As it is written in a suite."""
    return labels.ABSENT if value is None else value if isinstance(value, str) else json.dumps(value)


def _cell(text: str) -> TableCell:
    return TableCell(text, "text", text)
