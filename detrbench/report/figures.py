"""Which figures a section has, and the points, bars and curves in them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from detrbench.measures import COMMON
from detrbench.report import charts, columns, labels, plots, scatter, wording
from detrbench.report.charts import Chart
from detrbench.report.entries import Entry, number
from detrbench.report.fitting import left_out
from detrbench.report.identity import METHODS, STAR
from detrbench.report.marks import Axis
from detrbench.report.plots import Bar, Curve, Range
from detrbench.report.sections import Section
from detrbench.report.svg import PARTS
from detrbench.results.folder import CellFolder, read_lines


@dataclass(frozen=True)
class Legend:
    """One entry: `variable` is the CSS colour, `marker` a plot marker or "bar", `method` what it can isolate."""

    name: str
    variable: str
    marker: str
    hollow: bool = False
    method: str = ""


@dataclass(frozen=True)
class Figure:
    """One drawing with what stands around it; `svg` and `data` are safe to place in a page as they are.

    `sentence` is what it shows; `data` lets the script draw it on other axes; a `wide` one fills the page.
    """

    key: str
    title: str
    caption: str
    svg: str
    legend: tuple[Legend, ...]
    sentence: str = ""
    data: str = ""
    wide: bool = False


KEYS = (
    "ap_gflops",
    "gflops_by_part",
    "ap_epochs",
    "loss",
    "ap_size",
    "latency_ways",
)  # what a suite may list as `report: {plots: ...}`


def drawings(section: Section) -> list[Figure]:
    """The figures that the suite asks for, all by default; those without anything to draw are left out."""
    made = [*map(of_chart, charts.of_section(section))]
    if not left_out(section):
        made += filter(
            None, [_by_part(section), _by_epoch(section), _loss(section), _by_size(section), _by_way(section)]
        )
    wanted = section.wanted("plots", KEYS)
    return [figure for figure in made if figure.key in wanted]


def of_chart(chart: Chart) -> Figure:
    """A chart with its legend, and with its data for the script that draws it on other axes."""
    return Figure("ap_gflops", chart.title, chart.caption, scatter.drawing(chart), _legend(chart), chart.sentence,
                  _data(chart), chart.wide)  # fmt: skip


def _legend(chart: Chart) -> tuple[Legend, ...]:
    """Methods by colour, then bases by shape; only what has a point."""
    shown = chart.shown
    items = [
        Legend(name, f"--series-{METHODS.index(name) + 1}", "bar", method=name) for name in wording.families(shown)
    ]
    items += [Legend(f"on {base}", "--ink", shape, hollow=True) for base, shape in wording.bases(shown).items()]
    if any(mark.identity.is_baseline for mark in shown):
        items.append(Legend("baselines", "--ink", STAR, hollow=True))
    kinds = {mark.measured for mark in shown}
    if len(kinds) == 2:
        items += [Legend("published", "--ink", "o", hollow=True), Legend("measured", "--ink", "o")]
    return tuple(items)


def _data(chart: Chart) -> str:
    """All points with all of their figures, as JSON that may stand between single quotes in a tag."""
    across, upwards = chart.axes()
    labelled = {id(mark): text for mark, text in wording.named(list(chart.marks))}
    curves: dict[tuple[str, bool], int] = {}
    for m in chart.marks:
        if m.curve:
            curves.setdefault((m.curve, m.measured), len(curves))
    marks = [
        {"row": m.row, "name": m.name, "method": m.identity.family, "colour": m.identity.colour + 1,
         "marker": m.identity.marker, "measured": m.measured, "x": _rounded(m.x), "y": _rounded(m.y),
         "spans": {key: list(span) for key, span in m.spans.items()}, "seeds": m.seeds, "epochs": m.epochs,
         "source": m.source,
         "curve": curves.get((m.curve, m.measured), -1), "at": m.at, "label": labelled.get(id(m), "")}
        for m in chart.marks
    ]  # fmt: skip
    document = {
        "x": [_axis(axis) for axis in across],
        "y": [_axis(axis) | {"label": chart.with_axes(chart.x, axis.key).y_label} for axis in upwards],
        "first": {"x": chart.x, "y": chart.y},
        "steps": chart.wide,
        "marks": marks,
    }
    return json.dumps(document, separators=(",", ":")).translate(_IN_ATTRIBUTE)


_IN_ATTRIBUTE = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&'"})


def _axis(axis: Axis) -> dict[str, object]:
    return {"key": axis.key, "label": axis.label, "words": axis.words, "decimals": axis.decimals}


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {key: float(f"{value:.6g}") for key, value in values.items()}


def _by_part(section: Section) -> Figure | None:
    parts = columns.parts(section, "complexity")
    bars, used = [], set()
    for entry in section.entries:
        protocol = entry.first("complexity")
        record = entry.record("complexity", protocol)
        pieces = [(part, number(record, "gflops_by_part", part) or 0.0) for part in parts]
        if record and sum(value for _, value in pieces) > 0:
            ghost = number(entry.published.values, "gflops") if entry.published else None
            bars.append(Bar(_name(entry), entry.id, tuple(pieces), ghost))
            used.add(str(protocol))
    if not bars:
        return None
    title = "GFLOPs by part"
    summary = "; ".join(f"{bar.label} {labels.fixed(sum(v for _, v in bar.pieces), 1)}" for bar in bars)
    svg = plots.stacked(f"{section.anchor}-parts", bars, parts, "GFLOPs", f"{title}. {summary}")
    legend = tuple(Legend(part, f"--part-{i % PARTS + 1}", "bar") for i, part in enumerate(parts))
    caption = f"Protocol {', '.join(sorted(used))}: one forward at batch 1."
    if any(bar.ghost is not None for bar in bars):
        caption += " Hollow: the published total, which the paper counted by a rule of its own."
        legend += (Legend("published", "--ink", "D", hollow=True),)
    return Figure("gflops_by_part", title, caption, svg, legend)


def _curve(entry: Entry, rows: Iterable[Mapping[str, Any]], figure: str, least: int) -> list[Curve]:
    """A row's figure by epoch, of records that have both; none where there are fewer than `least`."""
    points = [(number(row, "epoch"), number(row, figure)) for row in rows]
    known = [(x, y) for x, y in points if x is not None and y is not None]
    if len(known) < least:
        return []
    xs, ys = zip(*known, strict=True)
    return [Curve(_name(entry), entry.identity.colour, entry.id, xs, ys)]


def _by_epoch(section: Section) -> Figure | None:
    lines: list[Curve] = []
    for entry in section.entries:
        record = entry.record("training", entry.first("training"))
        lines += _curve(entry, (row for row in record.get("epochs") or [] if isinstance(row, Mapping)), "AP", 1)
    if not lines:
        return None
    title = f"AP by training epoch{columns.of_first(section)}"
    summary = "; ".join(f"{line.label} ends at {labels.fixed(line.y[-1], 1)}" for line in lines)
    y_label = f"AP, {section.condition}"
    svg = plots.curves(f"{section.anchor}-epochs", lines, y_label, f"{title}. {summary}")
    return Figure("ap_epochs", title, f"Measured at {section.condition}, protocol {COMMON}.", svg, ())


def _loss(section: Section) -> Figure | None:
    lines: list[Curve] = []
    for entry in section.entries:
        if entry.cell is not None:
            lines += _curve(entry, read_lines(CellFolder(entry.cell.folder).training_log), "total", 2)
    if not lines:
        return None
    title = f"Loss in training{columns.of_first(section)}"
    summary = "; ".join(f"{line.label} ends at {labels.fixed(line.y[-1], 1)}" for line in lines)
    svg = plots.curves(f"{section.anchor}-loss", lines, "Loss", f"{title}. {summary}")
    caption = "Weighted sum of all terms that a detector trains on, which differ between methods."
    return Figure("loss", title, caption, svg, ())


_SIZES = {"APS": ("small", "v"), "APM": ("medium", "o"), "APL": ("large", "^")}


def _by_size(section: Section) -> Figure | None:
    rows = []
    for entry in section.entries:
        found = [entry.figure("accuracy", entry.either("accuracy"), "stats", key) for key in _SIZES]
        values = tuple(figure.value if figure else None for figure in found)
        if sum(value is not None for value in values) > 1:
            rows.append(Range(_name(entry), entry.id, values))
    if not rows:
        return None
    there = [any(row.values[i] is not None for row in rows) for i in range(len(_SIZES))]
    kinds = dict(kind for kind, known in zip(_SIZES.values(), there, strict=True) if known)
    rows = [replace(row, values=tuple(v for v, known in zip(row.values, there, strict=True) if known)) for row in rows]
    title = "AP by object size"
    told = [
        f"{row.label} {', '.join(f'{k} {labels.fixed(v, 1)}' for k, v in zip(kinds, row.values, strict=True))}"
        for row in rows
    ]
    svg = plots.spreads(
        f"{section.anchor}-sizes", rows, kinds, f"AP, {section.condition}", f"{title}. {'; '.join(told)}"
    )
    legend = tuple(Legend(kind, "--series-8", shape) for kind, shape in kinds.items())
    caption = f"Measured at {section.condition}; objects below 32x32 pixels, up to 96x96, and above."
    return Figure("ap_size", title, caption, svg, legend)


def _by_way(section: Section) -> Figure | None:
    """Each row's latency over that of the first one that was timed, under each protocol that both have."""
    ways: list[str] = columns.ways(section)
    timed: list[tuple[Entry, dict[int, float]]] = []
    for entry in section.entries:
        found = ((x, number(entry.record("latency", way), "median_ms", "value")) for x, way in enumerate(ways))
        medians = {x: ms for x, ms in found if ms is not None}
        if medians:
            timed.append((entry, medians))
    if len(timed) < 2:
        return None
    lines: list[Curve] = []
    first, against = timed[0]
    for entry, medians in timed:
        points = [(float(x), ms / against[x]) for x, ms in medians.items() if x in against]
        if len(points) > 1:
            xs, ys = zip(*points, strict=True)
            lines.append(Curve(_name(entry), entry.identity.colour, entry.id, xs, ys))
    title = "Latency by how a forward is run"
    ranges = (f"{line.label} {labels.fixed(min(line.y), 2)} to {labels.fixed(max(line.y), 2)}" for line in lines)
    conditions = [columns.words_of(way) for way in ways]
    y_label = f"Latency, times that of {_name(first)}"
    svg = plots.across(f"{section.anchor}-ways", lines, conditions, y_label, f"{title}. {'; '.join(ranges)}")
    caption = f"Medians, over that of {_name(first)} in the same rounds. Lines that cross change places."
    return Figure("latency_ways", title, caption, svg, (), wide=True)


def _name(entry: Entry) -> str:
    return entry.id if entry.cell is not None else entry.label
