"""Columns of the measure `queries`: queries per object, published beside measured, and where queries end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detrbench.report import labels
from detrbench.report.columns import EMPTY, Cell, Column
from detrbench.report.sections import Entry, Record, Section, number, point


def per_object(section: Section) -> list[Column]:
    """Queries per object above each threshold of the matching score."""
    found = {threshold for entry in section.entries for threshold in _record(entry).get("per_object") or {}}
    columns = []
    for threshold in sorted(found, key=float):
        group, key = f"Queries per object above {threshold}", f"queries.{threshold}"
        columns.append(Column(f"{key}.published", group, "published, COCO val2017", _published(section, threshold)))
        columns.append(Column(key, group, f"measured, {section.condition}", _measured("per_object", threshold)))
    return columns


def spread(section: Section) -> list[Column]:
    """Where queries end, with the decoder's self-attention and without it: to objects, and to one another."""

    def column(figure: str, words: str, way: str) -> Column:
        last = _measured(f"{way}_self_attention", figure, -1)
        return Column(f"{figure}.{way}", f"{words}, % of the diagonal", f"{way} self-attention", last)

    figures = {"to_object": "Object to its nearest queries", "to_neighbour": "Query to the nearest other"}
    return [column(figure, words, way) for figure, words in figures.items() for way in ("with", "without")]


def _record(entry: Entry) -> Record:
    return entry.record("queries", entry.first("queries"))


def _published(section: Section, threshold: str) -> Callable[[Entry], Cell]:
    """The published figure of the row's model and epoch at that threshold, whichever threshold the row itself has."""

    def cell(entry: Entry) -> Cell:
        if section.published is None or entry.published is None:
            return EMPTY
        row = point(section.published, entry.published, threshold=float(threshold))
        value = row.values.get("queries_per_object_approx") if row else None
        return EMPTY if value is None else Cell(labels.printed(value), "published", value)

    return cell


def _measured(*path: str | int) -> Callable[[Entry], Cell]:
    """An estimate inside a row's record, with its interval, or why there is none."""

    def cell(entry: Entry) -> Cell:
        if entry.cell is None:
            return EMPTY
        if not _record(entry):
            return Cell(labels.ABSENT, "absent", note=entry.why("queries"))
        estimate = _inside(_record(entry), path)
        value, low, high = (number(estimate, name) for name in ("value", "low", "high"))
        if value is None:
            return EMPTY
        return Cell(labels.fixed(value, 2), "measured", value, labels.interval(low, high, 2), low=low, high=high)

    return cell


def _inside(record: Any, path: tuple[str | int, ...]) -> Record:
    """What a path of keys and indices leads to; empty where it leads nowhere."""
    for step in path:
        try:
            record = record[step]
        except (LookupError, TypeError):
            return {}
    return record if isinstance(record, dict) else {}
