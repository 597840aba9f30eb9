"""Columns of the measure `queries`: queries per object, published beside measured, by epoch, and where queries end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from detrbench.report import columns, labels
from detrbench.report.columns import EMPTY, Column, TableCell
from detrbench.report.entries import Entry, Record, number
from detrbench.report.sections import Section, point

PUBLISHED = "queries_per_object_approx"  # the column of published tables; `threshold` says of which score


def per_object(section: Section) -> list[Column]:
    """Queries per object above each threshold of the matching score: published and, where any row has it, measured."""
    rows = section.published.rows if section.published else ()
    found = {f"{row.values['threshold']:g}" for row in rows if PUBLISHED in row.values}
    found |= {threshold for entry in section.entries for threshold in _record(entry).get("per_object") or {}}
    pairs = [_pair(section, threshold, _counted(threshold)) for threshold in sorted(found, key=float)]
    kept = slice(2 if section.is_measured("queries") else 1)
    return [column for pair in pairs for column in pair[kept]]


def _pair(section: Section, threshold: str, measured: Callable[[Entry], TableCell]) -> list[Column]:
    group, key = f"Queries per object above {threshold}", f"queries.{threshold}"
    return [
        Column(f"{key}.published", group, "published, COCO val2017", _published(section, threshold)),
        Column(key, group, f"measured, {section.condition}", measured),
    ]


def _counted(threshold: str) -> Callable[[Entry], TableCell]:
    """Queries per object above a threshold, or why there is no figure."""

    def cell(entry: Entry) -> TableCell:
        if entry.cell is None:
            return EMPTY
        rule = entry.first("queries")
        found = entry.figure("queries", rule, "per_object", threshold, "value")
        if found is None:
            return EMPTY if _record(entry) else TableCell(labels.ABSENT, "absent", note=entry.why("queries"))
        return columns.measured_cell(found, 2, note=entry.untold("queries", rule))

    return cell


@dataclass(frozen=True)
class AtEpoch(Entry):
    """A cell as it was after an epoch of its training, and the published row of that epoch."""

    epoch: int = 0
    gathered: Mapping[str, float] = field(default_factory=dict)  # by threshold


def epochs(section: Section) -> list[AtEpoch]:
    """A row for each epoch after which a training counted queries; none where the suite does not measure them."""
    if not section.is_measured("queries"):
        return []
    return [row for entry in section.entries if entry.cell is not None for row in _epochs_of(section, entry)]


def _epochs_of(section: Section, entry: Entry) -> Iterator[AtEpoch]:
    for row in entry.record("training", entry.first("training")).get("epochs") or []:
        epoch = number(row, "epoch")
        counted = {name.removeprefix(_IN_HISTORY): number(row, name) for name in row if name.startswith(_IN_HISTORY)}
        gathered = {threshold: value for threshold, value in counted.items() if value is not None}
        if epoch is None or not gathered:
            continue
        published = point(section.published, entry.published, epoch=int(epoch))
        yield AtEpoch(f"{entry.id} epoch {epoch:.0f}", entry.label, published, entry.cell, int(epoch), gathered)


_IN_HISTORY = "queries_above_"  # what `TrainingHistory` calls them, before the threshold


def by_epoch(section: Section, rows: list[AtEpoch]) -> list[Column]:
    """The epoch, and queries per object above each threshold, published beside measured."""

    def epoch(row: Entry) -> TableCell:
        assert isinstance(row, AtEpoch)
        return TableCell(str(row.epoch), "text", row.epoch)

    def measured(threshold: str) -> Callable[[Entry], TableCell]:
        def cell(row: Entry) -> TableCell:
            assert isinstance(row, AtEpoch)
            value = row.gathered.get(threshold)
            return EMPTY if value is None else TableCell(labels.fixed(value, 2), "measured", value)

        return cell

    made = [Column("epoch", "", "Epoch", epoch)]
    for threshold in sorted({name for row in rows for name in row.gathered}, key=float):
        made += _pair(section, threshold, measured(threshold))
    return made


def spread(section: Section) -> list[Column]:
    """Where queries end, with the decoder's self-attention and without it: to objects, and to one another."""
    if not section.is_measured("queries"):
        return []

    def column(figure: str, words: str, way: str) -> Column:
        last = _measured(f"{way}_self_attention", figure, -1)
        return Column(f"{figure}.{way}", f"{words}, % of the diagonal", f"{way} self-attention", last)

    figures = {"to_object": "Object to its nearest queries", "to_neighbour": "Query to the nearest other"}
    return [column(figure, words, way) for figure, words in figures.items() for way in ("with", "without")]


def _record(entry: Entry) -> Record:
    return entry.record("queries", entry.first("queries"))


def _published(section: Section, threshold: str) -> Callable[[Entry], TableCell]:
    """The published figure of the row's model and epoch at that threshold, whichever threshold the row itself has."""

    def cell(entry: Entry) -> TableCell:
        row = point(section.published, entry.published, threshold=float(threshold))
        value = row.values.get(PUBLISHED) if row else None
        return EMPTY if value is None else TableCell(labels.printed(value), "published", value)

    return cell


def _measured(*path: str | int) -> Callable[[Entry], TableCell]:
    """An estimate inside a row's record, with its interval, or why there is none."""

    def cell(entry: Entry) -> TableCell:
        if entry.cell is None:
            return EMPTY
        if not _record(entry):
            return TableCell(labels.ABSENT, "absent", note=entry.why("queries"))
        estimate = _inside(_record(entry), path)
        value, low, high = (number(estimate, name) for name in ("value", "low", "high"))
        if value is None:
            return EMPTY
        return TableCell(labels.fixed(value, 2), "measured", value, labels.interval(low, high, 2), low=low, high=high)

    return cell


def _inside(record: Any, path: tuple[str | int, ...]) -> Record:
    """What a path of keys and indices leads to; empty where it leads nowhere."""
    for step in path:
        try:
            record = record[step]
        except (LookupError, TypeError):
            return {}
    return record if isinstance(record, dict) else {}
