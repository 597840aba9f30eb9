"""How a section's detectors were trained: every value of their recipes, with who said it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from detrbench.report import labels
from detrbench.report.columns import EMPTY, Column, TableCell
from detrbench.report.entries import Entry, mapping
from detrbench.report.sections import Section
from detrbench.report.tables import Row, Table

ALL = "all"
_COLUMNS = tuple(
    Column(f"recipe.{key}", "", label, lambda _: EMPTY, numeric=False)
    for key, label in (("value", "Value"), ("from", "From"), ("rows", "Rows"))
)


def table(section: Section) -> Table:
    """A line a setting; several where rows differ in its value or in who says it."""
    trained = [entry for entry in section.entries if _recipe(entry)]
    names = dict.fromkeys(name for entry in trained for name in _recipe(entry))
    rows = tuple(row for name in names for row in _lines(name, trained))
    return Table("recipe", f"Recipes, {section.condition}", _COLUMNS, rows, first="Setting")


def _lines(name: str, trained: list[Entry]) -> Iterator[Row]:
    said: dict[str, list[str]] = {}
    for entry in trained:
        if name in _recipe(entry):
            said.setdefault(json.dumps(_recipe(entry)[name]), []).append(entry.id)
    for what, ids in said.items():
        value, source = json.loads(what)
        rows = ALL if len(ids) == len(trained) else ", ".join(ids)
        yield Row("", name, "", 0, True, None, tuple(map(_cell, (_shown(value), source, rows))))


def _recipe(entry: Entry) -> dict[str, Any]:
    return dict(mapping(entry.cell.cell.get("recipe"))) if entry.cell is not None else {}


def _shown(value: Any) -> str:
    """As it is written in a suite."""
    return labels.ABSENT if value is None else value if isinstance(value, str) else json.dumps(value)


def _cell(text: str) -> TableCell:
    return TableCell(text, "text", text)
