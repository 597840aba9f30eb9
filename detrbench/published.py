"""The papers' own figures, as data: reports/published/<paper>.yaml.

A file holds a paper's tables; a table holds rows as {column: value}. A value of None was not published or is illegible;
a row's `doubtful` names the cells that are not certain and why, `not_reproduced` those that the official code does not
give, and why; a table's `not_reproduced` holds for all of its rows. `difference_percent` puts on record how far ours is
from such a figure.

A suite points at a table as "focus_detr/table6" and each of its variants at one row with a selector such as
{model: Sparse DETR, keep_ratio: 0.3}.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from detrbench import yaml12
from detrbench.errors import SuiteError, unknown_name

FOLDER = Path(__file__).resolve().parent / "reports" / "published"
MET = 0.5  # percent: a published count is met where ours under its own rule is no farther off

Row = Mapping[str, Any]


@dataclass(frozen=True)
class PublishedRow:
    """One row of `table`: `values` by column, and why one is `doubtful`, or not what the official code gives.

    `difference_percent` is what ours was above such a figure when it was entered, in percent of the figure.
    """

    index: int
    values: Row
    table: str
    doubtful: Mapping[str, str] = field(default_factory=dict)
    not_reproduced: Mapping[str, str] = field(default_factory=dict)
    difference_percent: Mapping[str, float] = field(default_factory=dict)

    def matches(self, selector: Row) -> bool:
        return all(column in self.values and self.values[column] == value for column, value in selector.items())


@dataclass(frozen=True)
class PublishedTable:
    """One table or figure of a paper; `reference` is "<paper file>/<table id>", `paper` the method's short name."""

    reference: str
    paper: str
    title: str
    venue: str
    year: int
    arxiv: str | None
    caption: str
    source: str
    measured_on: str | None
    notes: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[PublishedRow, ...]

    def select(self, selector: Row) -> PublishedRow:
        """The one row whose columns have the selector's values.

        Raises:
            SuiteError: where the selector names no column of the table, or fits no row or more than one.
        """
        for column in selector:
            if column not in self.columns:
                known = ", ".join(self.columns)
                raise SuiteError(f"row: {self.reference} has no column {column!r}", hint=f"columns: {known}")
        found = [row for row in self.rows if row.matches(selector)]
        if len(found) == 1:
            return found[0]
        near = found or sorted(self.rows, key=lambda row: -_agreement(row, selector))
        raise SuiteError(
            f"row: {_phrase(selector)} fits {len(found)} rows of {self.reference}, expected 1",
            hint="candidates: " + "; ".join(_describe(row, selector, found) for row in near[:6]),
        )

    @property
    def citation(self) -> str:
        """For example: Focus-DETR, ICCV 2023, arXiv 2307.12612."""
        arxiv = f", arXiv {self.arxiv}" if self.arxiv and self.venue != "arXiv" else ""
        return f"{self.paper}, {self.venue} {self.year}{arxiv}"


def papers() -> list[str]:
    """Names of the files, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


@cache
def load(reference: str) -> PublishedTable:
    """A table by reference: "focus_detr/table6".

    Raises:
        SuiteError: where the reference has another form.
        UsageError: for an unknown paper or table, with the known names and the nearest.
    """
    paper, slash, table = reference.partition("/")
    if not slash:
        raise SuiteError(f"published: expected paper/table, got {reference!r}", hint="example: focus_detr/table6")
    if paper not in papers():
        raise unknown_name("paper", paper, papers())
    tables = tables_of(paper)
    if table not in tables:
        raise unknown_name(f"table of {paper}", table, tables)
    return tables[table]


@cache
def tables_of(paper: str) -> dict[str, PublishedTable]:
    """All tables of one paper by id, in the file's order."""
    document = yaml12.load(FOLDER / f"{paper}.yaml").value
    return {table["id"]: _table(paper, document, table) for table in document["tables"]}


def _table(paper: str, document: dict[str, Any], table: dict[str, Any]) -> PublishedTable:
    return PublishedTable(
        reference=f"{paper}/{table['id']}",
        paper=document["paper"],
        title=document["title"],
        venue=document["venue"],
        year=document["year"],
        arxiv=document["arxiv"],
        caption=table["caption"],
        source=table["source"],
        measured_on=table.get("measured_on"),
        notes=tuple(table.get("notes", ())),
        columns=tuple(table["columns"]),
        rows=tuple(
            _row(f"{paper}/{table['id']}", index, values, table.get("not_reproduced", {}))
            for index, values in enumerate(table["rows"])
        ),
    )


_REMARKS = ("doubtful", "not_reproduced", "difference_percent")  # keys of a row that are no columns


def _row(table: str, index: int, values: dict[str, Any], of_table: Mapping[str, str]) -> PublishedRow:
    figures = {key: value for key, value in values.items() if key not in _REMARKS}
    reasons = {**of_table, **values.get("not_reproduced", {})}
    not_reproduced = {column: reason for column, reason in reasons.items() if figures.get(column) is not None}
    doubtful, recorded = values.get("doubtful", {}), values.get("difference_percent", {})
    return PublishedRow(index, figures, table, doubtful, not_reproduced, recorded)


def _agreement(row: PublishedRow, selector: Row) -> int:
    return sum(row.values.get(column) == value for column, value in selector.items())


def _phrase(values: Row) -> str:
    return "{" + ", ".join(f"{column}: {value}" for column, value in values.items()) + "}"


def _describe(row: PublishedRow, selector: Row, found: list[PublishedRow]) -> str:
    """A candidate in the selector's columns, or in those that tell it from the other rows that fit."""
    differing = [c for c in row.values if len({str(other.values.get(c)) for other in found}) > 1]
    columns = [*selector, *differing[:3]] if found else list(selector)
    return _phrase({column: row.values.get(column) for column in columns})
