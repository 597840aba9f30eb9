"""Which rows of a section a reader would hold against each other."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from detrbench.report.entries import Entry
from detrbench.report.sections import Section

Pair = tuple[Entry, Entry]  # (new, old): the first is said to be better or worse than the second


def worth_comparing(section: Section) -> list[Pair]:
    """Pairs of measured rows, each once.

    A row with another row's weights stands against that row. Then other methods at the same keep ratio, then each row
    that was trained itself against its baseline.

    Only rows on the same base are paired: the same decoder behind the same backbone. The baseline of a row is the dense
    detector that it was made from, wherever that stands in the table, else the first dense row, else the first; where
    that has a keep ratio of its own, neighbouring ratios of one method are paired instead. Detectors from elsewhere are
    on no base: they stand against the first dense detector of ours.
    """
    groups: dict[tuple[str, str] | None, list[Entry]] = {}
    measured = [entry for entry in section.entries if entry.cell is not None and entry.cell.records]
    for entry in measured:
        if entry.source is None:
            groups.setdefault(base(entry), []).append(entry)
    found = [pair for rows in groups.values() for pair in _same_weights(rows)]
    found += [pair for rows in groups.values() for pair in _same_ratio(rows)]
    found += [pair for rows in groups.values() for pair in _against_baseline(rows)]
    found += _elsewhere(measured)
    seen: dict[frozenset[str], Pair] = {}
    for new, old in found:
        seen.setdefault(frozenset((new.id, old.id)), (new, old))
    return list(seen.values())


def _elsewhere(rows: list[Entry]) -> Iterator[Pair]:
    """Each detector from elsewhere against the first dense one of ours, else the first row."""
    ours = [entry for entry in rows if entry.source is None]
    dense = [entry for entry in ours if entry.identity.is_baseline]
    for first in (dense or ours or rows)[:1]:
        yield from ((entry, first) for entry in rows if entry.source is not None and entry is not first)


def _same_weights(rows: list[Entry]) -> Iterator[Pair]:
    by_id = {entry.id: entry for entry in rows}
    yield from ((entry, by_id[entry.weights_of]) for entry in rows if entry.weights_of in by_id)


def _same_ratio(rows: list[Entry]) -> Iterator[Pair]:
    by_ratio: dict[float, list[Entry]] = {}
    for entry in rows:
        if entry.identity.kept is not None:
            by_ratio.setdefault(entry.identity.kept, []).append(entry)
    for first, *others in by_ratio.values():
        yield from ((other, first) for other in others if other.identity.method != first.identity.method)


def _against_baseline(rows: list[Entry]) -> Iterator[Pair]:
    dense = [entry for entry in rows if entry.identity.is_baseline]
    first = (dense or rows)[0]
    if first.identity.kept is None:
        for other in rows:
            if other is not first and other.weights_of is None:
                yield other, next((entry for entry in dense if _is_base(entry, other)), first)
        return
    methods: dict[tuple[str, ...], list[Entry]] = {}
    for entry in rows:
        methods.setdefault(entry.identity.series, []).append(entry)
    for mine in methods.values():
        yield from ((new, old) for old, new in pairwise(mine))


def _is_base(dense: Entry, other: Entry) -> bool:
    """Whether a dense row is what another was made from."""
    return not other.identity.is_baseline and dense.identity.series[1:] == other.identity.series[1:]


def base(entry: Entry) -> tuple[str, str] | None:
    """(decoder, backbone) of a row at the paper's setting; None for a detector that is not known here."""
    found = entry.identity
    return (found.decoder, found.backbone) if found.known else None
