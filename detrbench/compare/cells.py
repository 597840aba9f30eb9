"""Two results beside each other: which cells answer to each other, and what their figures differ by. Imports no torch.

A side is a results folder, a suite, or the address of one cell (`results/address.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from detrbench.compare import differences
from detrbench.compare.differences import Difference, Reading
from detrbench.compare.quantities import QUANTITIES, Quantity
from detrbench.compare.verdicts import Verdict, verdict_on
from detrbench.errors import NothingSelected
from detrbench.measures import COMMON
from detrbench.results import address
from detrbench.results.folder import Warn
from detrbench.results.store import CellResult


@dataclass(frozen=True)
class ComparisonRow:
    """One quantity of one pair of cells. `b` is held against `a`; a quantity that one side lacks has no difference."""

    cell: str
    quantity: Quantity
    a: Reading | None
    b: Reading | None
    difference: Difference | None
    verdict: Verdict | None

    @property
    def equal(self) -> bool:
        """Whether both sides are the same to the last digit."""
        return self.a is not None and self.b is not None and self.a.evidence.value == self.b.evidence.value


@dataclass(frozen=True)
class Comparison:
    """All rows, without those of quantities that are `equal` in every pair; and cells without a counterpart."""

    a: str
    b: str
    rows: list[ComparisonRow]
    equal: list[Quantity]
    only_a: list[str]
    only_b: list[str]


def compare(a: str, b: str, results: Path, warn: Warn = None) -> Comparison:
    """Holds B against A.

    Args:
        a: the old side.
        b: the new side.
        results: the folder in which names of suites are looked up.
        warn: gets one line for each file that cannot be read.

    Raises:
        UsageError: a side that names no results.
        NothingSelected: no cell of A answers to one of B.
    """
    left, right = address.several(a, results, warn), address.several(b, results, warn)
    pairs, only_a, only_b = _pair(left, right)
    if not pairs:
        hint = f"name two cells, as A:ID B:ID. Cells of A: {', '.join(only_a)}; of B: {', '.join(only_b)}"
        raise NothingSelected("A and B have no cell in common", hint=hint)
    rows = [row for name, one, other in pairs for row in _rows(name, one, other)]
    equal = [f for f in QUANTITIES.values() if (mine := [r for r in rows if r.quantity is f]) and _all_equal(mine)]
    return Comparison(a, b, [row for row in rows if row.quantity not in equal], equal, only_a, only_b)


def _all_equal(rows: Iterable[ComparisonRow]) -> bool:
    return all(row.equal for row in rows)


def _pair(
    left: list[CellResult], right: list[CellResult]
) -> tuple[list[tuple[str, CellResult, CellResult]], list[str], list[str]]:
    """Pairs by suite, scale and id where these are the same on both sides; by id alone where suites differ."""
    if len(left) == len(right) == 1:
        one, other = left[0], right[0]
        name = one.id if one.id == other.id else f"{one.id} → {other.id}"
        return [(name, one, other)], [], []
    keys = {(cell.suite, cell.scale) for cell in left} & {(cell.suite, cell.scale) for cell in right}

    def key(cell: CellResult) -> tuple[str, ...]:
        return (cell.suite, cell.scale, cell.id) if keys else (cell.id,)

    several = len({(cell.suite, cell.scale) for cell in [*left, *right]}) > 1 and bool(keys)
    theirs = {key(cell): cell for cell in right}
    pairs = [(_label(cell, several), cell, theirs[key(cell)]) for cell in left if key(cell) in theirs]
    known = {key(cell) for cell in left}
    only_a = [_label(cell, several) for cell in left if key(cell) not in theirs]
    return pairs, only_a, [_label(cell, several) for cell in right if key(cell) not in known]


def _label(cell: CellResult, several: bool) -> str:
    return address.of(cell) if several else cell.id


def _rows(name: str, a: CellResult, b: CellResult) -> Iterable[ComparisonRow]:
    found = (
        compare_quantity(quantity, a, b, name, protocol)
        for quantity in QUANTITIES.values()
        for protocol in _protocols(quantity, a, b)
    )
    return [row for row in found if row is not None]


def _protocols(quantity: Quantity, a: CellResult, b: CellResult) -> list[str]:
    """Of latency each way to run that both sides have, since none stands for another; else the usual one."""
    if quantity.measure != "latency":
        return [COMMON]
    return sorted(_shared(quantity, a, b), key=lambda name: (name != COMMON, name)) or [COMMON]


def _shared(quantity: Quantity, a: CellResult, b: CellResult) -> set[str]:
    """The protocols that both sides have its measure under."""
    return set(a.records.get(quantity.measure, {})) & set(b.records.get(quantity.measure, {}))


def compare_quantity(
    quantity: Quantity, a: CellResult, b: CellResult, name: str, preferred: str = COMMON
) -> ComparisonRow | None:
    """A quantity of B held against that of A, under the preferred protocol or else under another that both have.

    Returns:
        The row called `name`, or None where neither cell has the quantity.
    """
    shared = _shared(quantity, a, b)
    protocol = next((p for p in (preferred, COMMON) if p in shared), min(shared, default=None))
    old, new = (differences.read(cell, quantity, protocol) for cell in (a, b))
    if old is None and new is None:
        return None
    if old is None or new is None:
        return ComparisonRow(name, quantity, old, new, None, None)
    found = differences.difference(new, old)
    return ComparisonRow(name, quantity, old, new, found, verdict_on(found, quantity))
