"""Which figures a section has, and the points, bars and curves in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from detrbench.report import columns, labels, plots
from detrbench.report.plots import Bar, Curve, Point, Range
from detrbench.report.sections import Entry, Section, number

Colours = Mapping[str, int]


@dataclass(frozen=True)
class Legend:
    """One entry: `variable` is the CSS colour, `marker` a plot marker or "bar"."""

    name: str
    variable: str
    marker: str
    hollow: bool = False


@dataclass(frozen=True)
class Figure:
    """One drawing with what stands around it; `svg` is safe to place in a page as it is."""

    key: str
    title: str
    caption: str
    svg: str
    legend: tuple[Legend, ...]


KEYS = (
    "ap_gflops",
    "ap_latency",
    "gflops_by_part",
    "ap_epochs",
    "ap_size",
)  # what a suite may list as `report: {plots: ...}`


def drawings(section: Section, colours: Colours) -> list[Figure]:
    """The figures that the suite asks for, all by default; those without anything to draw are left out."""
    made = [
        *_against_gflops(section, colours),
        _against_latency(section, colours),
        _by_part(section),
        _by_epoch(section, colours),
        _by_size(section),
    ]
    wanted = section.wanted("plots", KEYS)
    return [figure for figure in made if figure is not None and figure.key in wanted]


def _against_gflops(section: Section, colours: Colours) -> list[Figure | None]:
    """Published and measured in one drawing where both are AP on COCO val2017, else a drawing each."""
    theirs, ours = _published_points(section), _measured_points(section)
    comparable = bool(ours) and all(section.comparable(e) for e in section.entries if e.id in {p.row for p in ours})
    x_label, title = "GFLOPs", "AP against GFLOPs"
    if comparable:
        caption = "Filled: measured, with its interval. Hollow: published. GFLOPs as each table counts them."
        return [_scatter(section, f"{title}", caption, [*theirs, *ours], colours, x_label, "AP, COCO val2017")]
    published = measured = None
    if theirs:
        caption = f"As published by {section.published.citation}." if section.published else ""
        heading = f"{title}: published"
        published = _scatter(section, heading, caption, theirs, colours, x_label, "AP, COCO val2017")
    if ours:
        apart = "; not comparable with the published AP" if theirs else ""
        at = "at the paper's setting, " if section.changed else ""
        caption = (
            f"AP measured at {section.condition}, with its interval{apart}. "
            f"GFLOPs {at}under {_names_of_protocols(section)}."
        )
        y_label = f"AP, {section.condition}"
        measured = _scatter(section, f"{title}: measured", caption, ours, colours, x_label, y_label)
    return [published, measured]


def _scatter(
    section: Section, title: str, caption: str, points: list[Point], colours: Colours, x_label: str, y_label: str
) -> Figure:
    key = "ap_latency" if "latency" in title else "ap_gflops"
    name = f"{section.anchor}-{title.lower().replace(' ', '-').replace(':', '')}"
    summary = "; ".join(point.tip for point in points)
    svg = plots.scatter(name, points, colours, x_label, y_label, f"{title}. {summary}")
    return Figure(key, title, caption, svg, family_legend(points, colours))


def _published_points(section: Section) -> list[Point]:
    points = []
    for entry in section.entries:
        values = entry.published.values if entry.published else {}
        x, y = number(values, "gflops"), number(values, "AP")
        if x is not None and y is not None:
            ap, gflops = labels.printed(values["AP"]), labels.printed(values["gflops"])
            tip = f"{_name(entry)}, published: {ap} AP at {gflops} GFLOPs"
            points.append(Point(x, y, entry.family, entry.id, tip, _mark(entry), ghost=True))
    return points


def _measured_points(section: Section) -> list[Point]:
    points = []
    for entry in section.entries:
        x = number(entry.record("complexity", entry.either("complexity")), "gflops")
        ap = entry.record("accuracy", entry.either("accuracy"))
        y, low, high = (number(ap, "ap", key) for key in ("value", "low", "high"))
        if x is not None and y is not None:
            tip = f"{_name(entry)}: {ap_text(y, low, high)} at {labels.fixed(x, 1)} GFLOPs"
            points.append(Point(x, y, entry.family, entry.id, tip, _mark(entry), low, high))
    return points


def _names_of_protocols(section: Section) -> str:
    names = sorted({name for entry in section.entries if (name := entry.either("complexity"))})
    return " and ".join(names)


def _against_latency(section: Section, colours: Colours) -> Figure | None:
    points, records = [], []
    for entry in section.entries:
        record = entry.record("latency", entry.first("latency"))
        ap = entry.record("accuracy", entry.either("accuracy"))
        x, y = number(record, "median_ms", "value"), number(ap, "ap", "value")
        if x is None or y is None:
            continue
        low, high = number(ap, "ap", "low"), number(ap, "ap", "high")
        left, right = number(record, "median_ms", "low"), number(record, "median_ms", "high")
        time = f"{labels.fixed(x, 2)} ms {labels.interval(left, right, 2)}".strip()
        tip = f"{_name(entry)}: {ap_text(y, low, high)} at {time}"
        points.append(Point(x, y, entry.family, entry.id, tip, _mark(entry), low, high, left, right))
        records.append(record)
    if not points:
        return None
    first = records[0]
    keys = ("device", "batch_size", "height", "width")
    alike = all(record.get(key) == first.get(key) for record in records for key in keys)
    size = f"batch {first.get('batch_size')}, {first.get('height')}x{first.get('width')}"
    x_label = f"Latency, ms ({size})" if alike else "Latency, ms"
    where = f" on {first.get('device')}" if alike else ""
    caption = (
        f"AP measured at {section.condition}; median latency of one forward{where}. Bars are the intervals of both."
    )
    return _scatter(section, "AP against latency", caption, points, colours, x_label, f"AP, {section.condition}")


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
    legend = tuple(Legend(part, f"--part-{i % plots.SERIES + 1}", "bar") for i, part in enumerate(parts))
    caption = f"Protocol {', '.join(sorted(used))}: one forward at batch 1."
    if any(bar.ghost is not None for bar in bars):
        caption += " Hollow: the published total, which the paper counted by a rule of its own."
        legend += (Legend("published", "--ink", "D", hollow=True),)
    return Figure("gflops_by_part", title, caption, svg, legend)


def _by_epoch(section: Section, colours: Colours) -> Figure | None:
    lines = []
    for entry in section.entries:
        record = entry.record("training", entry.first("training"))
        rows = [row for row in record.get("epochs") or [] if isinstance(row, Mapping)]
        points = [(number(row, "epoch"), number(row, "AP")) for row in rows]
        known = [(x, y) for x, y in points if x is not None and y is not None]
        if known:
            xs, ys = zip(*known, strict=True)
            lines.append(Curve(_name(entry), entry.family, entry.id, xs, ys))
    if not lines:
        return None
    title = "AP by training epoch"
    summary = "; ".join(f"{line.label} ends at {labels.fixed(line.y[-1], 1)}" for line in lines)
    y_label = f"AP, {section.condition}"
    svg = plots.curves(f"{section.anchor}-epochs", lines, colours, y_label, f"{title}. {summary}")
    return Figure("ap_epochs", title, f"Measured at {section.condition}.", svg, ())


_SIZES = {"APS": ("small", "v"), "APM": ("medium", "o"), "APL": ("large", "^")}


def _by_size(section: Section) -> Figure | None:
    rows = []
    for entry in section.entries:
        record = entry.record("accuracy", entry.either("accuracy"))
        values = tuple(number(record, "stats", key) for key in _SIZES)
        if sum(value is not None for value in values) > 1:
            rows.append(Range(_name(entry), entry.id, values))
    if not rows:
        return None
    title, kinds = "AP by object size", dict(_SIZES.values())
    told = [
        f"{row.label} {', '.join(f'{k} {labels.fixed(v, 1)}' for k, v in zip(kinds, row.values, strict=True))}"
        for row in rows
    ]
    svg = plots.spreads(
        f"{section.anchor}-sizes", rows, kinds, f"AP, {section.condition}", f"{title}. {'; '.join(told)}"
    )
    legend = tuple(Legend(kind, f"--series-{i + 1}", shape) for i, (kind, shape) in enumerate(kinds.items()))
    caption = f"Measured at {section.condition}; objects below 32x32 pixels, up to 96x96, and above."
    return Figure("ap_size", title, caption, svg, legend)


def _name(entry: Entry) -> str:
    return entry.id if entry.cell is not None else " ".join([entry.label, _mark(entry)]).strip()


def _mark(entry: Entry) -> str:
    """The few characters at a point: its keep ratio, where it has one."""
    value = entry.option("keep_ratio")
    return "" if value is None else labels.printed(value)


def ap_text(value: float, low: float | None, high: float | None) -> str:
    """`45.3 AP [44.9, 45.7]`."""
    return f"{labels.fixed(value, 1)} AP {labels.interval(low, high, 1)}".strip()


def family_legend(points: list[Point], colours: Colours) -> tuple[Legend, ...]:
    """One entry a family; hollow where only its published points are drawn."""

    def legend(name: str) -> Legend:
        variable = f"--series-{colours[name] % plots.SERIES + 1}"
        hollow = all(point.ghost for point in points if point.family == name)
        return Legend(name, variable, plots.marker(colours[name]), hollow)

    return tuple(legend(name) for name in dict.fromkeys(point.family for point in points))
