"""What no paper can show: every method under one protocol, and how each published figure was counted.

A detector that stands in several suites is one row here. AP is gathered only from cells that share data, scale and
what the scale changes of a detector; each such condition is a section of its own, made of rows of all suites.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from detrbench.errors import DetrbenchError
from detrbench.measures import COMMON
from detrbench.models.parts import KINDS
from detrbench.report import columns, labels, pairs, tables
from detrbench.report.columns import EMPTY, Column, TableCell
from detrbench.report.entries import Entry, number
from detrbench.report.sections import Section
from detrbench.report.tables import Table
from detrbench.results.store import CellResult

# Settings that say how a detector was trained, not on what its AP was taken.
_TRAINED = ("labels", "keep_empty", "train_scales", "crop")


@dataclass(frozen=True)
class Detectors:
    """Distinct detectors as rows of one section; `suites` says where each row stands."""

    section: Section
    suites: Mapping[str, list[str]]


def detectors(found: list[Section]) -> Detectors:
    """Every distinct detector that was counted under `common`, cheapest first; tiny ones, for quick runs, last.

    Two cells are one detector where model, backbone, GFLOPs by part and parameters agree.
    """
    known: dict[str, Entry] = {}
    suites: dict[str, dict[str, None]] = {}
    for section in found:
        for entry in section.entries:
            identity = _identity(entry)
            if identity:
                known[identity] = _better_named(known.get(identity), entry)
                suites.setdefault(identity, {})[section.suite] = None
    shared = _shared_options(known.values())
    ids: dict[str, str] = {}
    for identity, entry in known.items():
        ids[identity] = _unique(_recipe(entry, shared[_model(entry)]), ids.values())
    models: dict[str, set[str]] = {}
    for entry in known.values():
        models.setdefault(entry.label, set()).add(_model(entry))
    rows = [_named(entry, ids[identity], len(models[entry.label]) > 1) for identity, entry in known.items()]
    rows.sort(key=lambda row: (_is_tiny(row), gflops(row), row.label, row.id))
    section = Section("all", "paper", {"title": "All methods under one protocol"}, None, rows)
    return Detectors(section, {ids[identity]: list(names) for identity, names in suites.items()})


def _identity(entry: Entry) -> str:
    record = entry.record("complexity", COMMON)
    if entry.cell is None or number(record, "gflops") is None:
        return ""
    parts = {part: round(number(record, "gflops_by_part", part) or 0.0, 6) for part in KINDS}
    return json.dumps([_model(entry), pairs.base(entry), gflops(entry), parts, number(record, "params_millions")])


def _better_named(known: Entry | None, new: Entry) -> Entry:
    """The one with a name that a paper gave it; "+ mixed query selection" says nothing outside its table."""
    if known is None or (new.published is not None and not new.label.startswith("+") and known.published is None):
        return new
    return known


def _named(entry: Entry, key: str, ambiguous: bool) -> Entry:
    """The row under its published name where that says which detector it is, else under a name of ours."""
    unsaying = entry.published is None or entry.label.startswith("+") or ambiguous
    return dataclasses.replace(entry, id=key, label=_title(entry) if unsaying else entry.label)


def _unique(key: str, taken: Iterable[str]) -> str:
    count = sum(other == key or other.startswith(f"{key} #") for other in taken)
    return f"{key} #{count + 1}" if count else key


def _title(entry: Entry) -> str:
    """What a row's detector is in a few words: the head of its summary, else its model's name."""
    from detrbench import models

    try:
        return models.describe(_model(entry)).summary.partition(":")[0]
    except DetrbenchError:
        return _model(entry)


def _model(entry: Entry) -> str:
    """As one would type it; a detector from elsewhere by its source."""
    return entry.source or (str(entry.cell.cell.get("model")) if entry.cell else "")


def _is_tiny(entry: Entry) -> bool:
    base = pairs.base(entry)
    return base is not None and base[1] == "tiny"


def _recipe(entry: Entry, without: Mapping[str, object]) -> str:
    """The model and the options it was given, as one would type them, leaving out those that all its rows share."""
    own = _own_backbone(_model(entry))
    given = {k: v for k, v in entry.options.items() if k not in without and (k, v) != ("backbone", own)}
    return " ".join([_model(entry), *(f"{key}={_typed(value)}" for key, value in given.items())])


def _own_backbone(model: str) -> str | None:
    """The backbone that is part of a model's name."""
    from detrbench import models

    try:
        return models.describe(model).parts.get("backbone")
    except DetrbenchError:
        return None


def _typed(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), default=str)


def _shared_options(entries: Iterable[Entry]) -> dict[str, dict[str, object]]:
    """By model: the options that all its rows have with one value, where there is more than one row."""
    groups: dict[str, list[Mapping[str, object]]] = {}
    for entry in entries:
        groups.setdefault(_model(entry), []).append(entry.options)
    return {
        model: {k: v for k, v in rows[0].items() if all(k in o and o[k] == v for o in rows)} if len(rows) > 1 else {}
        for model, rows in groups.items()
    }


def gflops(entry: Entry) -> float:
    """A row's total under `common`; 0 where there is none."""
    return number(entry.record("complexity", COMMON), "gflops") or 0.0


def detector_table(found: Detectors) -> Table:
    """GFLOPs by part, each total with its bar, and parameters."""
    section = found.section
    longest = max((gflops(entry) for entry in section.entries), default=1.0)
    parts = columns.parts(section, "complexity")

    def total(entry: Entry) -> TableCell:
        record = entry.record("complexity", COMMON)
        bar = tuple((i, (number(record, "gflops_by_part", part) or 0.0) / longest) for i, part in enumerate(parts))
        return TableCell(labels.fixed(gflops(entry), 1), "measured", gflops(entry), bar=bar)

    def backbone(entry: Entry) -> TableCell:
        base = pairs.base(entry)
        text = labels.shown("backbone", base[1] if base else entry.options.get("backbone"))
        return TableCell(text, "text", text)

    def where(entry: Entry) -> TableCell:
        first, *others = found.suites[entry.id]
        return TableCell(f"{first} and {len(others)} more" if others else first, "text", ", ".join([first, *others]))

    made = [
        Column("backbone", "", "Backbone", backbone, numeric=False),
        Column("gflops.common", "GFLOPs, common", "total", total),
        *(dataclasses.replace(column, group="GFLOPs, common") for column in columns.by_part(section, "complexity")),
        *(column for column in columns.params(section) if column.key == "params_M"),
        Column("suites", "", "In suites", where, numeric=False),
    ]
    return tables.fill("detectors", section.title, section, made, section.entries)


def conditions(found: list[Section]) -> list[Section]:
    """The rows of all suites that have an AP, gathered by what it was measured on; the largest gathering first.

    The same detector trained alike in two suites is one row.
    """
    groups: dict[str, dict[str, Entry]] = {}
    sweeps: dict[str, str] = {}
    for section in found:
        for entry in section.entries:
            if entry.cell is None or number(entry.record("accuracy", COMMON), "ap", "value") is None:
                continue
            condition = _condition(section, entry)
            groups.setdefault(condition, {}).setdefault(_trained(entry.cell), entry)
            if section.sweep:
                sweeps.setdefault(condition, section.sweep)
    ordered = sorted(groups.items(), key=lambda item: len(item[1]), reverse=True)
    return [_gathered(list(rows.values()), sweeps.get(condition)) for condition, rows in ordered]


def _trained(cell: CellResult) -> str:
    """Equal for cells that are one detector with one training, under whatever name; weights of another are not own."""
    training = cell.envelopes.get("training")
    said = [cell.cell.get(key) for key in ("model", "options", "resolved", "weights_of")]
    return str(training["key"]) if training else json.dumps(said, sort_keys=True, default=str)


def _condition(section: Section, entry: Entry) -> str:
    """Scale, data, evaluated images and what the scale changes of the detector, as text to compare."""
    from detrbench.training.recipe import Recipe

    how = {field.name for field in dataclasses.fields(Recipe)} | set(_TRAINED)
    cell = entry.cell.cell if entry.cell else {}
    data = {key: value for key, value in (cell.get("resolved") or {}).items() if key not in how}
    images = entry.record("accuracy", COMMON).get("num_images")
    return json.dumps([section.scale, data, entry.changed, images], sort_keys=True, default=str)


def _gathered(entries: list[Entry], sweep: str | None) -> Section:
    cells = [entry.cell for entry in entries if entry.cell is not None]
    suites = list(dict.fromkeys(cell.suite for cell in cells))
    several = len(suites) > 1
    rows = [
        dataclasses.replace(entry, id=f"{cell.suite}: {entry.id}" if several else entry.id)
        for entry, cell in zip(entries, cells, strict=True)
    ]
    return Section("all", cells[0].scale, {"title": "AP", "suites": suites, "report": {"sweep": sweep}}, None, rows)


def condition_table(section: Section) -> Table:
    """AP beside cost, best first."""

    def epochs(entry: Entry) -> TableCell:
        trained = len(entry.record("training", entry.first("training")).get("epochs") or [])
        return TableCell(str(trained), "measured", trained) if trained else EMPTY

    def total(entry: Entry) -> TableCell:
        return TableCell(labels.fixed(gflops(entry), 1), "measured", gflops(entry)) if gflops(entry) else EMPTY

    made = [
        *columns.full_accuracy(section),
        Column("epochs", "", "Epochs trained", epochs),
        Column("gflops.common", "GFLOPs", "common", total),
        *columns.speed(section),
    ]

    def ap(entry: Entry) -> float:
        found = entry.figure("accuracy", COMMON, "ap", "value")
        return found.value if found else 0.0

    best = sorted(section.entries, key=lambda entry: -ap(entry))
    return tables.fill("ap", f"AP, {section.condition}", section, made, best)
