"""What one suite at one scale has to show: published rows and measured cells, paired row by row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from detrbench import published
from detrbench.errors import UsageError
from detrbench.measures import COMMON, EVALUATED
from detrbench.models.parts import ALL_KINDS
from detrbench.published import PublishedRow, PublishedTable
from detrbench.report import labels
from detrbench.report.entries import Entry, Record, mapping
from detrbench.results.store import CellResult, ResultsStore

# Columns that number the points of a published curve; the cell that answers to one of its points answers to all.
CURVE = ("epoch", "threshold")
_AS_KEEP_RATIO = (
    "keep_ratio",
    "keep_ratios",
    "layer_ratios",
)  # a ratio, or one for each layer, of which it is the mean
COCO_VAL_IMAGES = 5000  # val2017; an AP over fewer images is no AP that a paper published


@dataclass(frozen=True)
class Section:
    """One suite at one scale; `problems` are things a reader should know were left out."""

    suite: str
    scale: str
    spec: Record
    published: PublishedTable | None
    entries: list[Entry]
    problems: list[str] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """The section's id in the page."""
        return f"{self.suite}-{self.scale}"

    @cached_property
    def tables(self) -> list[PublishedTable]:
        """The published tables that rows answer to: the suite's own first."""
        others = {entry.published.table for entry in self.entries if entry.published}
        own = [self.published] if self.published else []
        return own + [published.load(each) for each in sorted(others - {table.reference for table in own})]

    @property
    def title(self) -> str:
        return str(self.spec.get("title") or self.suite)

    @cached_property
    def cells(self) -> list[CellResult]:
        return [entry.cell for entry in self.entries if entry.cell is not None]

    @cached_property
    def measures(self) -> list[str]:
        """What the suite measures: as its file lists it, else what is there."""
        listed = self.spec.get("measure")
        if isinstance(listed, list):
            return [str(measure) for measure in listed]
        found = {m for cell in self.cells for m in [*cell.records, *mapping(cell.status.get("measures"))]}
        return sorted(found - {"training"})

    def is_measured(self, measure: str) -> bool:
        """Whether any row has a figure of this measure; one that none has gets a sentence instead of columns."""
        return measure in self._measured

    @cached_property
    def _measured(self) -> set[str]:
        return {measure for cell in self.cells for measure in cell.records}

    def missing(self) -> list[tuple[str, str]]:
        """(measure, why) for what the suite measures and no row has; rows without any figure say so themselves."""
        rows = [entry for entry in self.entries if entry.cell is not None and entry.cell.records]
        gone = [measure for measure in self.measures if not self.is_measured(measure)] if rows else []
        return [(measure, "; ".join(dict.fromkeys(entry.why(measure) for entry in rows))) for measure in gone]

    @cached_property
    def sweep(self) -> str | None:
        """What the rows of one detector run through, as the suite declares it: `keep_ratio`."""
        declared = mapping(self.spec.get("report")).get("sweep")
        return str(declared) if declared else None

    def swept(self, entry: Entry) -> float | None:
        """Where a row stands in the sweep; a detector with a keep ratio for each layer at their mean."""
        if self.sweep is None:
            return None
        value = entry.identity.kept if self.sweep == "keep_ratio" else entry.option(self.sweep)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def curve(self, entry: Entry) -> str:
        """Equal for rows that the sweep joins: alike in all but the swept value; empty for a row outside of it."""
        if self.swept(entry) is None:
            return ""
        through = {self.sweep, *(_AS_KEEP_RATIO if self.sweep == "keep_ratio" else ())}
        options = {key: value for key, value in entry.options.items() if key not in through}
        printed = entry.published.values if entry.published else {"row": "ours"}  # never joined with a paper's
        described = {k: v for k, v in printed.items() if k not in through and k not in labels.FIGURES}
        weights = entry.weights_of or (entry.id if entry.id in self._gives_weights else "")
        return json.dumps([*entry.identity.series, options, described, weights], sort_keys=True, default=str)

    @cached_property
    def _gives_weights(self) -> set[str | None]:
        """Ids of rows with whose weights others are measured."""
        return {entry.weights_of for entry in self.entries}

    def asks(self, kind: str) -> bool:
        """Whether the suite itself lists tables or plots."""
        return bool(mapping(self.spec.get("report")).get(kind))

    def wanted(self, kind: str, known: tuple[str, ...]) -> tuple[str, ...]:
        """Which of the known tables or plots the suite's `report` lists; all where it lists none."""
        listed = mapping(self.spec.get("report")).get(kind)
        return tuple(name for name in known if name in listed) if listed else known

    @cached_property
    def settings(self) -> Record:
        """The scale's settings: as the cells were made, where they agree, else as the suite has them."""
        resolved = [mapping(cell.cell.get("resolved")) for cell in self.cells]
        shared = {k: v for k, v in resolved[0].items() if all(r.get(k) == v for r in resolved)} if resolved else {}
        return shared or mapping(mapping(self.spec.get("scales")).get(self.scale))

    @cached_property
    def changed(self) -> dict[str, str]:
        """Options that this scale changes against the paper's setting, where all cells change them alike."""
        changes = [
            {key: labels.shown(key, value) for key, value in entry.changed.items()}
            for entry in self.entries
            if entry.cell is not None
        ]
        return {k: v for k, v in changes[0].items() if all(c.get(k) == v for c in changes)} if changes else {}

    @cached_property
    def condition(self) -> str:
        """Under what AP was measured: "smoke scale: shapes 128 px"."""
        return f"{self.scale} scale: {labels.data_label(self.settings)}"

    def protocols(self, measure: str) -> list[str]:
        """Names of the protocols that have records, `common` last; not that of what a scale evaluates."""
        names = {name for cell in self.cells for name in cell.records.get(measure, {})} - {EVALUATED}
        return sorted(names, key=lambda name: (name == COMMON, name))

    def comparable(self, entry: Entry) -> bool:
        """Whether a row's measured AP may stand against the published one: paper scale, all of COCO val2017."""
        images = entry.record("accuracy", entry.either("accuracy")).get("num_images")
        return self.scale == "paper" and self.settings.get("data") == "coco" and images == COCO_VAL_IMAGES

    @cached_property
    def has_comparable(self) -> bool:
        """Whether the measured AP of any row may stand against the published one."""
        return any(self.comparable(entry) for entry in self.entries)

    @cached_property
    def is_apart(self) -> bool:
        """Whether there are published figures that none of the measured ones may be read beside."""
        return self.published is not None and not self.has_comparable


def read(store: ResultsStore, suites: list[str] | None = None) -> list[Section]:
    """The sections of a results folder, sorted by suite and scale; `suites` keeps those named.

    Raises:
        UsageError: a name in `suites` has no results.
    """
    found = store.suites()
    suites = [store.called(name) for name in suites or ()]
    for name in suites:
        if name not in {suite for suite, _ in found}:
            known = ", ".join(sorted({suite for suite, _ in found})) or "none"
            raise UsageError(
                f"no results of suite {name!r} in {store.root}",
                hint=f"suites with results: {known}; to make some: detrbench run {name}",
            )
    return [
        section_of(suite, scale, store.read_suite(suite, scale), store.cells(suite, scale))
        for suite, scale in found
        if not suites or suite in suites
    ]


def section_of(suite: str, scale: str, spec: Record, cells: list[CellResult]) -> Section:
    """Pairs cells with published rows, in the published order; cells that answer to no row of the suite's table come
    last, some of them with a row of another one.
    """
    problems: list[str] = []
    table = _published(spec.get("published"), problems)
    cells = [cell for cell in cells if not cell.cell.get("published_only")]
    chosen = {cell.id: _row(_table_of(cell, table, problems), cell, problems) for cell in cells}
    entries: list[Entry] = []
    answered = {_curve(row) for row in chosen.values() if row is not None}
    for row in table.rows if table else ():
        matching = [cell for cell in cells if chosen[cell.id] is row]
        name = _name(row)
        entries += [Entry(cell.id, name, row, cell) for cell in matching]
        if not matching and _curve(row) not in answered:
            entries.append(Entry(f"published-{row.index + 1}", name, row, None))
    shown = {entry.id for entry in entries}
    entries += [_of_no_row(cell, chosen[cell.id]) for cell in cells if cell.id not in shown]
    return Section(suite, scale, spec, table, entries, problems)


def _of_no_row(cell: CellResult, other: PublishedRow | None) -> Entry:
    """The entry of a cell that answers to no row of the suite's table, but may answer to one of another."""
    return Entry(cell.id, _name(other) if other else _label(cell), other, cell)


def _name(row: PublishedRow) -> str:
    """The model of a published row; in a table without models its first word, else its number."""
    words = [value for value in row.values.values() if isinstance(value, str)]
    return str(row.values.get("model", words[0] if words else f"row {row.index + 1}"))


def _label(cell: CellResult) -> str:
    """The model of a row that no table has, with the parts that it has instead of the model's own."""
    options = mapping(cell.cell.get("options"))
    if cell.cell.get("source"):
        return cell.id
    swapped = [f"{kind} {options[kind]}" for kind in ALL_KINDS if kind != "backbone" and kind in options]
    return ", ".join([str(cell.cell.get("model", cell.id)), *swapped])


def point(table: PublishedTable | None, row: PublishedRow | None, **at: Any) -> PublishedRow | None:
    """Another point of the curve that a row belongs to: the row that is the same but for `at` and its figures."""
    if table is None or row is None:
        return None
    wanted = {key: value for key, value in {**row.values, **at}.items() if key not in labels.FIGURES}
    return next((other for other in table.rows if other.matches(wanted)), None)


def _curve(row: PublishedRow) -> tuple[tuple[str, str], ...] | int:
    """What the points of a curve have in common; a row of a table without curves is alone."""
    if not any(name in row.values for name in CURVE):
        return row.index
    return tuple((key, str(v)) for key, v in row.values.items() if key not in CURVE and key not in labels.FIGURES)


def _table_of(cell: CellResult, usual: PublishedTable | None, problems: list[str]) -> PublishedTable | None:
    """The table that a cell answers to."""
    own = cell.cell.get("published")
    return _published(own, problems) if own else usual


def _published(reference: Any, problems: list[str]) -> PublishedTable | None:
    if not reference:
        return None
    try:
        return published.load(str(reference))
    except UsageError as error:
        problems.append(f"published figures left out: {error.message}")
        return None


def _row(table: PublishedTable | None, cell: CellResult, problems: list[str]) -> PublishedRow | None:
    selector = cell.cell.get("row")
    if table is None or not isinstance(selector, Mapping) or not selector:
        return None
    try:
        return table.select(selector)
    except UsageError as error:
        problems.append(f"{cell.id}: {error.message}")
        return None
