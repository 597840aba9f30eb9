"""AP against GFLOPs over all suites, under one count: what is measured by condition, and what was published."""

from __future__ import annotations

import dataclasses
import json

from detrbench import published as published_tables
from detrbench.measures import COMMON
from detrbench.report import figures, labels, pairs, plots
from detrbench.report.figures import Colours, Figure
from detrbench.report.overview import Detectors, gflops
from detrbench.report.plots import Point
from detrbench.report.sections import Entry, Section, number

X_LABEL = "GFLOPs, ours, protocol common"


def measured(section: Section, colours: Colours) -> Figure | None:
    """The rows of one condition; None where there are fewer than two."""
    points = []
    for entry in section.entries:
        record = entry.record("accuracy", COMMON)
        y, low, high = (number(record, "ap", key) for key in ("value", "low", "high"))
        if y is not None and gflops(entry):
            tip = f"{entry.id}: {figures.ap_text(y, low, high)} at {labels.fixed(gflops(entry), 1)} GFLOPs"
            points.append(Point(gflops(entry), y, entry.family, entry.id, tip, entry.id, low, high))
    if len(points) < 2:
        return None
    at = "; GFLOPs are of the paper's setting" if section.changed else ""
    changed = ", ".join(f"{labels.label(key).lower()} {value}" for key, value in section.changed.items())
    trained = f", detectors with {changed}" if changed else ""
    caption = f"All that was measured at {section.condition}{trained}{at}. Dashed: no other row has more AP for less."
    title = f"AP against GFLOPs, {section.condition}"
    return _draw(f"frontier-{section.condition}", title, caption, points, colours, f"AP, {section.condition}")


def published(found: list[Section], detectors: Detectors, colours: Colours) -> Figure | None:
    """Published AP at GFLOPs counted alike, for the backbone that most rows have; None for fewer than two rows."""
    by_backbone: dict[str, dict[str, Point]] = {}
    for section in found:
        for entry in section.entries:
            row = detectors.row_of(entry)
            point = _published_point(entry, row) if row else None
            if point is not None:
                base = pairs.base(entry)
                backbone = labels.shown("backbone", base[1] if base else entry.options.get("backbone"))
                by_backbone.setdefault(backbone, {})[json.dumps([row, point.y])] = point
    if not by_backbone:
        return None
    backbone, points = max(by_backbone.items(), key=lambda item: len(item[1]))
    if len(points) < 2:
        return None
    title = "Published AP against GFLOPs counted alike"
    caption = (
        f"Each hollow mark is an AP as published (COCO val2017, {backbone}, whatever the training), put at the GFLOPs "
        f"that we count for the same detector under {COMMON}. No AP here is ours. "
        "Dashed: no other row has more AP for less."
    )
    return _draw("frontier-published", title, caption, list(points.values()), colours, "AP, COCO val2017, as published")


def _published_point(entry: Entry, row: str) -> Point | None:
    ap = number(entry.published.values, "AP") if entry.published else None
    if ap is None or entry.published is None:
        return None
    epochs = entry.published.values.get("epochs")
    after = f" after {labels.printed(epochs)} epochs" if epochs else ""
    paper = f"{published_tables.load(entry.published.table).paper}, {labels.table_name(entry.published.table)}"
    cost = f"{labels.fixed(gflops(entry), 1)} GFLOPs"
    tip = f"{entry.label} ({paper}): {labels.printed(ap)} AP as published{after}, at {cost}"
    ratio = entry.option("keep_ratio")
    mark = entry.label if ratio is None else f"{entry.label} {labels.printed(ratio)}"
    return Point(gflops(entry), ap, entry.family, row, tip, mark, ghost=True)


def _draw(name: str, title: str, caption: str, points: list[Point], colours: Colours, y_label: str) -> Figure:
    """The drawing; only points on the frontier are named, the others on hover and in the table."""
    best = plots.unbeaten(points)
    named = [point if point in best else dataclasses.replace(point, mark="") for point in points]
    summary = f"{title}: {len(points)} points. None has more AP for less than these: {'; '.join(p.tip for p in best)}"
    svg = plots.scatter(name, named, colours, X_LABEL, y_label, summary, frontier=True)
    return Figure("frontier", title, caption, svg, figures.family_legend(points, colours))
