"""Which rows of a section a reader would hold against each other."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from detrbench.errors import DetrbenchError
from detrbench.report.sections import Entry, Section

Pair = tuple[Entry, Entry]  # (new, old): the first is said to be better or worse than the second


def worth_comparing(section: Section) -> list[Pair]:
    """Pairs of measured rows, each once.

    A row with another row's weights stands against that row. Then other methods at the same keep ratio, then each row
    that was trained itself against its baseline.

    Only rows on the same base are paired: the same decoder behind the same backbone. The baseline is the first row;
    where that has a keep ratio of its own, neighbouring ratios of one method are paired instead.
    """
    groups: dict[tuple[str, str] | None, list[Entry]] = {}
    for entry in section.entries:
        if entry.cell is not None and entry.cell.records:
            groups.setdefault(base(entry), []).append(entry)
    found = [pair for rows in groups.values() for pair in _same_weights(rows)]
    found += [pair for rows in groups.values() for pair in _same_ratio(rows)]
    found += [pair for rows in groups.values() for pair in _against_baseline(rows)]
    seen: dict[frozenset[str], Pair] = {}
    for new, old in found:
        seen.setdefault(frozenset((new.id, old.id)), (new, old))
    return list(seen.values())


def _same_weights(rows: list[Entry]) -> Iterator[Pair]:
    by_id = {entry.id: entry for entry in rows}
    yield from ((entry, by_id[entry.weights_of]) for entry in rows if entry.weights_of in by_id)


def _same_ratio(rows: list[Entry]) -> Iterator[Pair]:
    by_ratio: dict[object, list[Entry]] = {}
    for entry in rows:
        if entry.option("keep_ratio") is not None:
            by_ratio.setdefault(str(entry.option("keep_ratio")), []).append(entry)
    for first, *others in by_ratio.values():
        yield from ((other, first) for other in others if other.family != first.family)


def _against_baseline(rows: list[Entry]) -> Iterator[Pair]:
    first, *others = rows
    if first.option("keep_ratio") is None:
        yield from ((other, first) for other in others if other.weights_of is None)
        return
    families: dict[str, list[Entry]] = {}
    for entry in rows:
        families.setdefault(entry.family, []).append(entry)
    for mine in families.values():
        yield from ((new, old) for old, new in pairwise(mine))


def base(entry: Entry) -> tuple[str, str] | None:
    """(decoder, backbone) of a row at the paper's setting; None for a detector that is not known here."""
    from detrbench import models

    try:
        spec = models.resolve(str(entry.cell.cell.get("model")) if entry.cell else "", entry.options)
    except DetrbenchError:
        return None
    return spec.parts["decoder"], spec.parts["backbone"]
