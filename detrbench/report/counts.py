"""How each published GFLOPs figure was counted: under its own rule, ours under that rule, ours under `common`."""

from __future__ import annotations

import json

from detrbench import published
from detrbench.measures import COMMON
from detrbench.published import MET
from detrbench.report import columns, labels, overview, tables
from detrbench.report.columns import EMPTY, Column, TableCell
from detrbench.report.entries import Entry, number
from detrbench.report.findings import Clause, Finding
from detrbench.report.sections import Section
from detrbench.report.tables import Table

MOST = 12  # detectors of which a sentence is made; the table has them all


def counted_rows(found: list[Section]) -> Section:
    """Every published row with GFLOPs of which the detector was counted here; equal rows of two suites once."""
    rows: dict[str, Entry] = {}
    for section in found:
        for entry in section.entries:
            if entry.published is None or number(entry.published.values, "gflops") is None:
                continue
            if number(entry.record("complexity", entry.either("complexity")), "gflops") is not None:
                same = json.dumps([entry.published.table, entry.published.index, _detector(entry)], default=str)
                rows.setdefault(same, entry)
    ordered = sorted(rows.values(), key=lambda e: (overview.gflops(e), _detector(e), e.label, _source(e)))
    return Section("counts", "paper", {"title": "How each published figure was counted"}, None, ordered)


def _detector(entry: Entry) -> str:
    model = entry.cell.cell.get("model") if entry.cell else None
    return json.dumps([model, dict(entry.options)], sort_keys=True, default=str)


def _source(entry: Entry) -> str:
    """`Focus-DETR, Table 6`."""
    if entry.published is None:
        return labels.ABSENT
    return f"{published.load(entry.published.table).paper}, {labels.table_name(entry.published.table)}"


def table(section: Section) -> Table:
    """A row a published figure."""

    def source(entry: Entry) -> TableCell:
        return TableCell(_source(entry), "text", _source(entry))

    def protocol(entry: Entry) -> TableCell:
        name = entry.own("complexity")
        return TableCell(name, "text", name) if name else EMPTY

    def against_common(entry: Entry) -> TableCell:
        theirs = number(entry.published.values, "gflops") if entry.published else None
        ours = overview.gflops(entry)
        if not theirs or not ours:
            return EMPTY
        percent = 100 * (theirs - ours) / ours
        return TableCell(f"{labels.fixed(percent, 1, sign=True)} %", "difference", percent)

    def others(entry: Entry) -> TableCell:
        shown = (COMMON, entry.own("complexity"))
        found = entry.cell.records.get("complexity", {}) if entry.cell else {}
        text = ", ".join(
            f"{name} {labels.fixed(number(record, 'gflops'), 1)}" for name, record in found.items() if name not in shown
        )
        return TableCell(text, "text", text) if text else EMPTY

    made = [
        Column("source", "", "Published in", source, numeric=False),
        *_grouped(columns.gflops(section, named=False), protocol),
        Column("gflops.against_common", "GFLOPs", "published against common", against_common),
        Column("gflops.others", "", "Under other rules", others, numeric=False),
    ]
    return tables.fill("counts", section.title, section, made, section.entries)


def _grouped(made: list[Column], protocol: columns.Make) -> list[Column]:
    """The columns of GFLOPs, with the name of the protocol after the published figure."""
    first, *rest = made
    return [first, Column("gflops.protocol", "GFLOPs", "its protocol", protocol, numeric=False), *rest]


def facts(section: Section) -> list[Finding]:
    """How many published figures are met, and which detectors are published with more than one."""
    off = [d for entry in section.entries if (d := columns.gflops_difference(entry)) is not None]
    found = []
    if off:
        near, worst = sum(abs(d) <= MET for d in off), labels.fixed(max(map(abs, off)), 1)
        text = f"{near} of {len(off)} are met within {MET:g} % under the protocol of their table"
        found.append(Finding("Published GFLOPs", (Clause(text), Clause(f"the farthest is off by {worst} %"))))
    groups: dict[str, list[Entry]] = {}
    for entry in section.entries:
        groups.setdefault(_detector(entry), []).append(entry)
    spread = sorted((s for rows in groups.values() if (s := _spread(rows))), key=lambda s: -s[0])
    return found + [finding for _, finding in spread[:MOST]]


def _spread(rows: list[Entry]) -> tuple[float, Finding] | None:
    """One detector for which papers print different GFLOPs, by how many percent they differ."""
    figures: dict[float, list[str]] = {}
    for entry in rows:
        value = number(entry.published.values, "gflops") if entry.published else None
        if value and _source(entry) not in figures.setdefault(value, []):
            figures[value].append(_source(entry))
    low, high = min(figures), max(figures)
    percent = 100 * (high / low - 1)
    if percent <= MET:
        return None
    printed = " and ".join(f"{labels.printed(v)} ({'; '.join(figures[v])})" for v in sorted(figures))
    clauses = [Clause(f"published with {printed} GFLOPs, {labels.fixed(percent, 0)} % apart")]
    if overview.gflops(rows[0]):
        clauses.append(Clause(f"{labels.fixed(overview.gflops(rows[0]), 1)} under {COMMON}"))
    return percent, Finding(rows[0].label, tuple(clauses))
