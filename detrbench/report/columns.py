"""Columns of a section's tables: how each cell is filled from a published row and a cell's records."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from detrbench.measure import protocols
from detrbench.measures import COMMON, NATIVE
from detrbench.models.parts import KINDS
from detrbench.report import labels
from detrbench.report.entries import Entry, Figure, Record, number
from detrbench.report.sections import Section

Kind = Literal["text", "published", "measured", "difference", "absent"]


@dataclass(frozen=True)
class TableCell:
    """One cell. `text` is what is shown, `value` what it sorts by, `detail` its interval, `note` its footnote.

    `bar` draws the figure beside it: (number of the part, its length as a share of the column's longest bar).
    A mean over `seeds` has their standard deviation `sd`.
    """

    text: str
    kind: Kind
    value: float | str | None = None
    detail: str = ""
    note: str | None = None
    low: float | None = None
    high: float | None = None
    bar: tuple[tuple[int, float], ...] = ()
    sd: float | None = None
    seeds: int | None = None


Make = Callable[[Entry], TableCell]


@dataclass(frozen=True)
class Column:
    """A column: `group` stands above `label`; `make` fills a row's cell; `part` is its colour's number in bars.

    `switch` names what of ours a reader switches on beside a paper's own columns; empty for what is always shown.
    `apart` stands in a block that must not be read with its neighbours.
    """

    key: str
    group: str
    label: str
    make: Make
    numeric: bool = True
    part: int | None = None
    switch: str = ""
    apart: bool = False


EMPTY = TableCell(labels.ABSENT, "absent")
_SPLITS = {"complexity": ("gflops_by_part", "GFLOPs", 1), "latency": ("by_part_ms", "ms", 2)}


def _published(*keys: str) -> Make:
    """The published figure of a row, as printed; the first key that the table has counts."""

    def cell(entry: Entry) -> TableCell:
        if entry.published is None:
            return EMPTY
        for key in keys:
            value, doubt = entry.published.values.get(key), entry.published.doubtful.get(key)
            if value is not None or doubt:
                remarks = {"doubtful": doubt, "not reproduced": entry.published.not_reproduced.get(key)}
                note = "; ".join(f"{what}: {why}" for what, why in remarks.items() if why) or None
                return TableCell(labels.printed(value), "published", value, note=note)
        return EMPTY

    return cell


def _measured(
    measure: str, decimals: int, *path: str, protocol: Callable[[Entry], str | None], named: bool = False
) -> Make:
    """A figure of a row's record, with its interval where it is an estimate, or why there is none."""

    def cell(entry: Entry) -> TableCell:
        if entry.cell is None:
            return EMPTY
        chosen = protocol(entry)
        record = entry.record(measure, chosen)
        found = entry.figure(measure, chosen, *path)
        if found is None and record:
            return EMPTY
        if found is None:
            has_other = bool(entry.cell.records.get(measure))
            return EMPTY if has_other else TableCell(labels.ABSENT, "absent", note=entry.why(measure))
        notes = [entry.official(measure), entry.began_with if measure == "accuracy" else None]
        note = "; ".join(said for said in [*notes, entry.untold(measure, chosen)] if said) or None
        return measured_cell(found, decimals, str(chosen) if named else "", note)

    return cell


def measured_cell(found: Figure, decimals: int, rule: str = "", note: str | None = None) -> TableCell:
    """A figure as a table shows it: a mean over seeds with its standard deviation, an estimate with its interval."""
    return TableCell(
        labels.spread(found.value, found.sd, decimals),
        "measured",
        found.value,
        " ".join([labels.interval(found.low, found.high, decimals), rule]).strip(),
        note,
        found.low,
        found.high,
        sd=found.sd,
        seeds=found.seeds if found.seeds > 1 else None,
    )


def accuracy_heading(section: Section) -> str:
    """Which measured AP this is; two scales never share a heading, and NMS before the evaluation is another rule."""
    return f"measured, {section.condition}{_rule(section)}{over_seeds(section)}"


def over_seeds(section: Section) -> str:
    """That figures are means over seeds, where there are any: ", mean ± SD of 3 seeds"."""
    found = sorted({entry.seeds for entry in section.entries if entry.seeds})
    if not found or found[-1] == 1:
        return ""
    return f", mean ± SD of {' to '.join(map(str, dict.fromkeys((found[0], found[-1]))))} seeds"


def of_first(section: Section) -> str:
    """What a caption adds where several seeds were trained and the first of them is shown."""
    return ", first seed" if over_seeds(section) else ""


def _accuracy_rules(section: Section) -> list[str]:
    """The protocols that the AP column shows; where there are several, each row names its own."""
    return sorted({rule for entry in section.entries if entry.cell and (rule := entry.either("accuracy"))})


def accuracy(section: Section, names: list[str]) -> list[Column]:
    """Published beside measured with their difference; each in a block of its own where no row may be compared."""
    columns: list[Column] = []
    apart: list[Column] = []
    named = len(_accuracy_rules(section)) > 1
    for name in names:
        group = name if len(names) > 1 else "AP"
        columns.append(Column(f"{name}.published", group, "published, COCO val2017", _published(name)))
        if not section.is_measured("accuracy"):
            continue
        path = {"AP": ("ap", "value"), "AP50": ("ap50", "value")}.get(name, ("stats", name))
        measured = _measured("accuracy", 1, *path, protocol=lambda entry: entry.either("accuracy"), named=named)
        if not section.is_apart:
            columns.append(Column(f"{name}.measured", group, accuracy_heading(section), measured))
        if section.has_comparable:
            columns.append(Column(f"{name}.difference", group, "difference", _ap_difference(section, name, path)))
        if section.is_apart:
            apart.append(
                Column(f"{name}.measured", measured_apart(section), f"{name}{_rule(section)}", measured, apart=True)
            )
    if apart and len(names) > 1:
        columns = [dataclasses.replace(c, group="published, COCO val2017", label=n) for c, n in zip(columns, names)]
    return [*columns, *apart]


def measured_apart(section: Section) -> str:
    """The heading of the block that holds what was measured under conditions of its own."""
    not_coco = ": not COCO" if section.settings.get("data") != "coco" else ""
    return f"measured, {section.condition}{not_coco}{over_seeds(section)}"


def _rule(section: Section) -> str:
    rules = _accuracy_rules(section)
    return f", protocol {rules[0]}" if len(rules) == 1 and rules != [COMMON] else ""


def _ap_difference(section: Section, name: str, path: tuple[str, ...]) -> Make:
    def cell(entry: Entry) -> TableCell:
        theirs = entry.published.values.get(name) if entry.published else None
        ours = entry.figure("accuracy", entry.either("accuracy"), *path)
        if theirs is None or ours is None or not section.comparable(entry):
            return EMPTY
        return TableCell(labels.fixed(ours.value - theirs, 1, sign=True), "difference", ours.value - theirs)

    return cell


def tokens() -> list[Column]:
    """The share of the tokens that a row is about, where it is about a feature level (Lite DETR, Table 2)."""
    return [Column("token_share.published", "Tokens, %", "published", _published("token_share_percent"))]


def gflops_difference(entry: Entry) -> float | None:
    """Ours under the published table's protocol against the published figure, in percent of the latter."""
    theirs = entry.published.values.get("gflops") if entry.published else None
    ours = number(entry.record("complexity", entry.own("complexity")), "gflops")
    return None if not theirs or ours is None else 100 * (ours - theirs) / theirs


def gflops(section: Section, named: bool = True) -> list[Column]:
    """Published, ours under the table's protocol (`named` where there are several), the difference, ours in common."""

    def difference(entry: Entry) -> TableCell:
        percent = gflops_difference(entry)
        if percent is None:
            return EMPTY
        return TableCell(f"{labels.fixed(percent, 1, sign=True)} %", "difference", percent)

    rules = sorted({p for entry in section.entries if (p := entry.own("complexity"))})
    several = len(rules) > 1
    heading = f"ours, {rules[0]}" if len(rules) == 1 else "ours, by the paper's rule"
    own = _measured("complexity", 1, "gflops", protocol=lambda entry: entry.own("complexity"), named=several and named)
    common = _measured("complexity", 1, "gflops", protocol=lambda entry: COMMON)
    columns = [Column("gflops.published", "GFLOPs", "published", _published("gflops"))]
    if rules:
        columns.append(Column("gflops.own", "GFLOPs", heading, own))
        columns.append(Column("gflops.difference", "GFLOPs", "difference", difference))
    if section.is_measured("complexity"):
        columns.append(Column("gflops.common", "GFLOPs, common", "ours", common, switch="common GFLOPs"))
    if NATIVE in section.protocols("complexity"):
        native = _measured("complexity", 1, "gflops", protocol=lambda entry: NATIVE)
        columns.append(Column("gflops.native", "GFLOPs, own image size", "ours", native, switch="own image size"))
    return columns


def params(section: Section) -> list[Column]:
    ours = _measured("complexity", 1, "params_millions", protocol=lambda entry: entry.first("complexity"))
    return [
        Column("params_M.published", "Params (M)", "published", _published("params_M")),
        *([Column("params_M", "Params (M)", "ours", ours)] if section.is_measured("complexity") else []),
    ]


def speed(section: Section) -> list[Column]:
    columns = []
    if section.is_measured("latency"):
        values = [number(e.record("latency", e.first("latency")), "median_ms", "value") for e in section.entries]
        decimals = labels.decimals_of_time(values)
        median = _measured("latency", decimals, "median_ms", "value", protocol=lambda entry: entry.first("latency"))
        fps = _measured("latency", 1, "fps", protocol=lambda entry: entry.first("latency"))
        columns.append(Column("latency", "Latency, ours", "median, ms", median, switch="latency"))
        columns.append(Column("fps", "Latency, ours", "FPS", fps, switch="latency"))
    published = _published("fps", "fps_batch4")
    return [Column("fps.published", "Speed", "FPS published, other hardware", published), *columns]


def ways(section: Section) -> list[str]:
    """The latency protocols of a section where it has several, in the order in which they are listed."""
    found = section.protocols("latency")
    return [name for name in protocols.of("latency") if name in found] if len(found) > 1 else []


def words_of(protocol: str) -> str:
    """Its name, so that a line of it can be broken."""
    return protocol.replace("_", " ")


def latencies(section: Section) -> list[Column]:
    """The median of each way to run, where several were timed: none stands for another."""

    def column(name: str) -> Column:
        values = [number(entry.record("latency", name), "median_ms", "value") for entry in section.entries]
        median = _measured(
            "latency", labels.decimals_of_time(values), "median_ms", "value", protocol=lambda entry: name
        )
        return Column(f"latency.{name}", "ms", words_of(name), median)

    return [column(name) for name in ways(section)]


def memory(section: Section) -> list[Column]:
    if not section.is_measured("memory"):
        return []
    values = [number(e.record("memory", e.first("memory")), "forward_mib") for e in section.entries]
    decimals = 0 if max([value or 0.0 for value in values], default=0.0) >= 20 else 1
    forward = _measured("memory", decimals, "forward_mib", protocol=lambda entry: entry.first("memory"))
    step = _measured("memory", decimals, "training_step_mib", protocol=lambda entry: entry.first("memory"))
    return [
        Column("memory.forward", "Memory, MiB", "forward", forward, switch="memory"),
        Column("memory.training", "Memory, MiB", "training step", step, switch="memory"),
    ]


def corr(section: Section) -> list[Column]:
    """Published beside measured by the paper's definition; where that is not `common`, ours under `common` apart."""
    published = Column("corr.published", "Corr", "published", _published("corr_mean"))
    if not section.is_measured("dam"):
        return [published]
    common = _measured("dam", 3, "corr", "value", protocol=lambda entry: entry.first("dam"))
    apart = section.is_apart
    group, label = (measured_apart(section), "Corr") if apart else ("Corr", f"measured, {section.condition}")
    if not any(entry.own("dam") for entry in section.entries):
        return [published, Column("corr", group, label, common, apart=apart)]
    paper = _measured("dam", 3, "corr", "value", protocol=lambda entry: entry.own("dam"))
    over_all = "Corr over all of the decoder's attention"
    other = (group, over_all) if apart else (over_all, label)
    return [
        published,
        Column("corr.paper", group, label, paper, apart=apart),
        Column("corr", *other, common, apart=apart),
    ]


def full_accuracy(section: Section) -> list[Column]:
    names = ["AP", "AP50", "AP75", "APS", "APM", "APL"]
    return accuracy(section, names) if section.is_measured("accuracy") else []


def parts(section: Section, measure: str) -> list[str]:
    """The parts that a measure was split into, in the detector's order."""
    key = _SPLITS[measure][0]
    found = {name for e in section.entries for name in e.record(measure, e.first(measure)).get(key) or {}}
    return sorted(found, key=lambda name: (KINDS.index(name) if name in KINDS else len(KINDS), name))


def by_part(section: Section, measure: str) -> list[Column]:
    """A column for each part of a measure that is split by part."""
    key, unit, decimals = _SPLITS[measure]

    def column(number: int, part: str) -> Column:
        cell = _measured(measure, decimals, key, part, protocol=lambda entry: entry.first(measure))
        return Column(f"{measure}.{part}", unit, part, cell, part=number)

    return [column(number, part) for number, part in enumerate(parts(section, measure))]


def training(section: Section) -> list[Column]:
    """How long each cell was trained, on how much, and where its loss ended."""

    def column(label: str, decimals: int, pick: Callable[[Record], float | None]) -> Column:
        def cell(entry: Entry) -> TableCell:
            record = entry.record("training", entry.first("training"))
            value = pick(record) if record else None
            return EMPTY if value is None else TableCell(labels.fixed(value, decimals), "measured", value)

        return Column(f"training.{label}", "", label, cell)

    return [
        column("epochs", 0, lambda record: float(len(record.get("epochs") or []))),
        column("images seen", 0, lambda record: number(record, "images_seen")),
        column("last loss", 3, _last_loss),
        column("minutes", 1, lambda record: (number(record, "seconds") or 0.0) / 60),
    ]


def _last_loss(record: Record) -> float | None:
    epochs = record.get("epochs") or []
    return number(epochs[-1], "loss") if epochs else None
