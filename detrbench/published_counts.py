"""Every published GFLOPs figure of a detector that is built, beside ours under the same rule. Imports no torch itself.

Suites say which cell answers to which published row, and under which protocol. A figure that the official code does not
give has its reason in the published table (`not_reproduced`, or `doubtful`), and beside it how far ours is from it, so
that a gap which is accounted for is noticed when it changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from detrbench import models, published
from detrbench.errors import UsageError
from detrbench.external import sources
from detrbench.measures import EVALUATED, NATIVE
from detrbench.published import PublishedRow, PublishedTable
from detrbench.run.keys import count_keys
from detrbench.suite import loading as suites
from detrbench.suite.cells import Cell

# What the papers call encoder and decoder, by our parts; None is the whole detector.
PARTS: Mapping[str, tuple[str, ...] | None] = {
    "gflops": None,
    "backbone_gflops": ("backbone",),
    "encoder_gflops": ("encoder",),
    "decoder_gflops": ("decoder", "heads"),
}

TOLERANCE = 1.0  # percent of the published figure, which is printed with two or three digits
RECORDED_TOLERANCE = 0.1  # percent: of a difference on record, which is known better

Count = Callable[[Cell, str], Mapping[str, Any]]  # (cell, protocol) -> a complexity record as JSON


@dataclass(frozen=True)
class PublishedCount:
    """One published figure and ours, in GFLOPs; without a rule `ours` is None, and `reason` is why they may differ.

    `recorded_percent` is the difference on record where there is such a reason.
    """

    suite: str
    cell: str
    table: str
    figure: str
    published: float
    protocol: str | None
    ours: float | None
    common: float
    reason: str | None
    recorded_percent: float | None = None

    @property
    def difference_percent(self) -> float | None:
        """Ours above the published figure, in percent of it."""
        return None if self.ours is None else 100 * (self.ours / self.published - 1)

    @property
    def unexplained(self) -> str | None:
        """What nobody has accounted for: more than 1 % without a reason, or not the difference on record; else None."""
        found = self.difference_percent
        if found is None:
            return None
        if self.reason is None or self.recorded_percent is None:
            return None if abs(found) <= TOLERANCE else f"{found:+.1f} % is not accounted for"
        if abs(found - self.recorded_percent) > RECORDED_TOLERANCE:
            return f"{self.recorded_percent:+.1f} % is on record"
        return None


@dataclass(frozen=True)
class _Figure:
    cell: Cell
    table: PublishedTable
    row: PublishedRow
    column: str


def compare(what: str | None, count: Count) -> list[PublishedCount]:
    """The published figures of one suite, one table (`paper/table`), or of all suites; each figure once.

    Args:
        what: a suite, a table, or None.
        count: gives the record of a cell under a protocol; is asked once for equal ones.
    """
    known: dict[str, Mapping[str, Any]] = {}

    def counted(cell: Cell, protocol: str) -> Mapping[str, Any]:
        key = count_keys(cell)[protocol]
        if key not in known:
            known[key] = count(cell, protocol)
        return known[key]

    return [_compare(figure, counted) for figure in _figures(what)]


def _figures(what: str | None) -> list[_Figure]:
    table = published.load(what) if what and "/" in what and not what.endswith((".yaml", ".yml")) else None
    found: dict[tuple[str, int, str], _Figure] = {}
    for name in [what] if what and not table else suites.names():
        for figure in _of_suite(suites.load(name), table):
            found.setdefault((figure.table.reference, figure.row.index, figure.column), figure)
    return list(found.values())


def _of_suite(loaded: suites.LoadedSuite, other: PublishedTable | None) -> Iterable[_Figure]:
    """The figures of a suite's cells; `other` takes the place of the table of a cell where it is the same paper's."""
    if not any([loaded.suite.published, *(variant.published for variant in loaded.suite.variants)]):
        return
    for cell in loaded.cells(loaded.suite.pick_scale(None, has_data=True)):
        table = _table(cell.published or loaded.suite.published, other)
        row = _row(table, cell) if table else None
        if table is None or row is None or not _can_be_counted(cell):
            continue
        for column in PARTS:
            if row.values.get(column) is not None:
                yield _Figure(cell, table, row, column)


def _table(own: str | None, other: PublishedTable | None) -> PublishedTable | None:
    if own is None or other is None:
        return published.load(own) if own else None
    return other if other.reference.partition("/")[0] == own.partition("/")[0] else None


def _can_be_counted(cell: Cell) -> bool:
    if cell.external is not None:
        return sources.lacking(cell.external, cell.options, cell.python) is None
    return cell.model in models.names()


def _row(table: PublishedTable, cell: Cell) -> PublishedRow | None:
    try:
        return table.select(cell.row) if cell.row else None
    except UsageError:  # another table need not have this row
        return None


def _compare(figure: _Figure, counted: Count) -> PublishedCount:
    common, *others = figure.cell.protocols_of("complexity")
    own = [name for name in others if name not in (EVALUATED, NATIVE)]
    row, column = figure.row, figure.column
    return PublishedCount(
        suite=figure.cell.suite,
        cell=figure.cell.id,
        table=figure.table.reference,
        figure=column,
        published=float(row.values[column]),
        protocol=own[0] if own else None,
        ours=_value(counted(figure.cell, own[0]), column) if own else None,
        common=_value(counted(figure.cell, common), column),
        reason=row.not_reproduced.get(column) or row.doubtful.get(column),
        recorded_percent=row.difference_percent.get(column),
    )


def _value(record: Mapping[str, Any], column: str) -> float:
    parts = PARTS[column]
    if parts is None:
        return float(record["gflops"])
    return float(sum(record["gflops_by_part"].get(part, 0.0) for part in parts))
