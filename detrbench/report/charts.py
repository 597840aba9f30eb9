"""AP against cost: which charts there are, of one table, of one condition, and of all tables together.

A published AP is hollow, a measured one filled. They share a chart only where both are AP on all of COCO val2017; what
was measured under any other condition has charts of its own, against costs of the detector that was evaluated.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from detrbench.errors import UsageError, unknown_name
from detrbench.report import labels, overview, wording
from detrbench.report.marks import COSTS, FIGURES, Axis, Mark, measured_marks, published_marks
from detrbench.report.sections import Section

COCO = "COCO val2017"
NAMES = {
    f"{y.lower()}_{x}": (x, y) for y in FIGURES for x in COSTS if x != "gflops_evaluated"
}  # what `detrbench figure` draws: ap_gflops, ...


@dataclass(frozen=True)
class Chart:
    """Points with the axes that are drawn first; `wide` fills the page, and `y_label` names the data of its AP."""

    key: str
    title: str
    marks: tuple[Mark, ...]
    x: str
    y: str
    y_label: str
    caption: str = ""
    wide: bool = False
    sentence: str = ""

    @property
    def shown(self) -> list[Mark]:
        """The points that have both of the axes' figures."""
        return [mark for mark in self.marks if self.x in mark.x and self.y in mark.y]

    def axes(self) -> tuple[list[Axis], list[Axis]]:
        """The costs and the figures that at least two of the points have together with what is drawn first."""
        across = [axis for axis in COSTS.values() if _count(self.marks, axis.key, self.y) > 1]
        upwards = [axis for axis in FIGURES.values() if any(_count(self.marks, c.key, axis.key) > 1 for c in across)]
        return across, upwards

    def with_axes(self, x: str, y: str) -> Chart:
        """The same points on other axes: keys of COSTS and of FIGURES."""
        label = self.y_label if y == self.y else self.y_label.replace(self.y, FIGURES[y].label, 1)
        same = self if (x, y) == (self.x, self.y) else replace(self, sentence="")
        return replace(same, x=x, y=y, y_label=label)


def _count(marks: Iterable[Mark], x: str, y: str) -> int:
    return sum(x in mark.x and y in mark.y for mark in marks)


def headline(found: list[Section]) -> Chart | None:
    """AP against GFLOPs over all suites, for the backbone that most points have; None where there is nothing to draw.

    Published AP, with what was measured on all of COCO val2017 beside it. Of one detector that was trained as long, in
    several tables or ablations, the best is kept.
    """
    marks = _distinct([mark for section in found for mark in _comparable(section)])
    backbones = [mark.identity.backbone for mark in marks]
    if not backbones:
        return None
    most = max(dict.fromkeys(backbones), key=backbones.count)
    shown = labels.shown("backbone", most)
    kept = tuple(mark for mark in marks if mark.identity.backbone == most)
    x = next((key for key in ("gflops", "gflops_published") if _count(kept, key, "AP") > 1), None)
    if x is None:
        return None
    measured = any(mark.measured for mark in kept)
    caption = (
        f"AP on {COCO}, {shown}. Hollow: as published{', filled: measured here' if measured else ''}. "
        + ("We counted the GFLOPs of every detector by one rule. " if x == "gflops" else "GFLOPs as published. ")
        + "Where a detector has several figures, the best is shown. Stars: the baselines. "
        "Dashed: the Pareto front of one training length, where no other point has more AP for fewer GFLOPs."
    )
    chart = Chart("ap_gflops", "AP against GFLOPs", kept, x, "AP", f"AP, {COCO}", caption, wide=True)
    return replace(chart, sentence=wording.sentence(chart.shown, chart.x))


def _comparable(section: Section) -> Iterator[Mark]:
    """The points of one suite that may stand in the headline, under ids that are distinct over all suites."""
    ours = {entry.id for entry in section.entries if section.comparable(entry)}
    for mark in [*published_marks(section), *(mark for mark in measured_marks(section) if mark.row in ours)]:
        if mark.identity.known:
            curve = f"{section.suite} {mark.curve}" if mark.curve else ""
            yield replace(mark, row=f"{section.anchor}: {mark.row}", curve=curve)


def _distinct(marks: list[Mark]) -> list[Mark]:
    """Each curve once, then of every other detector the best of its figures at one cost and one length of training."""
    curves: dict[str, list[Mark]] = {}
    for mark in marks:
        curves.setdefault(mark.curve, []).append(mark)
    alone = curves.pop("", [])
    kept: dict[str, Mark] = {}
    for mine in sorted(curves.values(), key=len, reverse=True):
        if len(mine) > 1 and not any(_same(mark) in kept for mark in mine):
            kept.update((_same(mark), mark) for mark in mine)
    for mark in sorted([*alone, *(m for mine in curves.values() for m in mine)], key=lambda mark: -mark.y["AP"]):
        kept.setdefault(_same(mark), replace(mark, curve=""))
    return list(kept.values())


def _same(mark: Mark) -> str:
    """Equal for figures of one detector that were trained as long."""
    cost = next((round(mark.x[key]) for key in ("gflops", "gflops_published", "latency") if key in mark.x), None)
    return json.dumps([mark.identity.series, mark.identity.kept, cost, mark.epochs, mark.measured])


def measured(section: Section, key: str) -> Chart | None:
    """What was measured under the condition of one section, with the costs of the evaluated detectors."""
    marks = tuple(measured_marks(section))
    x = next(
        (cost for cost in ("gflops", "gflops_evaluated", "latency", "memory") if _count(marks, cost, "AP") > 1), None
    )
    if x is None:
        return None
    changed = ", ".join(f"{labels.label(name).lower()} {value}" for name, value in section.changed.items())
    of = f"detectors with {changed}" if changed else "the detectors as counted"
    at = f"AP measured at {section.condition}, {of}, with its 95 % interval"
    chart = Chart(
        key,
        f"AP against {COSTS[x].words}",
        marks,
        x,
        "AP",
        f"AP, {section.condition}",
        f"{at}. {_counts_of(section, x)}",
    )
    return replace(chart, sentence=wording.sentence(chart.shown, chart.x))


def _counts_of(section: Section, x: str) -> str:
    if x == "gflops":
        return "GFLOPs under common: one forward at the size of COCO's images."
    if x == "gflops_evaluated":
        return "GFLOPs of the same detectors, at the size of their evaluation images (protocol evaluated)."
    apart = "GFLOPs are counted at the paper's setting, of other detectors than these, and are not drawn here."
    return " ".join([*_timing(section, x), *([apart] if section.is_measured("complexity") else [])])


def _timing(section: Section, x: str) -> list[str]:
    """On what one forward was timed, where all rows agree."""
    if x != "latency":
        return []
    records = [entry.record("latency", entry.first("latency")) for entry in section.entries]
    said = {
        f"Median of one forward on {r.get('device')}, batch {r.get('batch_size')}, {r.get('height')}x{r.get('width')}."
        for r in records
        if r
    }
    return sorted(said) if len(said) == 1 else []


def of_section(section: Section) -> list[Chart]:
    """The charts of one table: as published, and as measured; one chart where both are AP on all of COCO val2017."""
    theirs, ours = tuple(published_marks(section)), tuple(measured_marks(section))
    together = bool(ours) and all(section.comparable(e) for e in section.entries if e.id in {m.row for m in ours})
    made: list[Chart | None] = []
    marks = (*theirs, *ours) if together else theirs
    x = next((cost for cost in ("gflops", "gflops_published") if _count(marks, cost, "AP") > 1), None)
    if x is not None:
        what = "Hollow: as published; filled: measured, with its 95 % interval." if together else "As published."
        made.append(
            Chart(
                f"{section.anchor}-ap", "AP against GFLOPs", marks, x, "AP", f"AP, {COCO}", f"{what} {COSTS[x].label}."
            )
        )
    if not together:
        made.append(measured(section, f"{section.anchor}-measured"))
    return [chart for chart in made if chart is not None]


def named(found: list[Section], name: str) -> Chart:
    """The chart that is asked for by name: of all suites together, of a single table, else of what was measured.

    Args:
        found: the suites.
        name: a key of NAMES: `ap_gflops`.

    Raises:
        UsageError: a name that is not known, or nothing to draw.
    """
    if name not in NAMES:
        raise unknown_name("figure", name, NAMES)
    known = of_section(found[0]) if len(found) == 1 else [headline(found)]
    known += [measured(section, "measured") for section in overview.conditions(found)]
    charts = [chart for chart in known if chart is not None]
    asked, y = NAMES[name]
    for x in (asked, "gflops_evaluated") if asked == "gflops" else (asked,):
        for chart in charts:
            if _count(chart.marks, x, y) > 1:
                return chart.with_axes(x, y)
    there = [key for key, (x, y) in NAMES.items() if any(_count(chart.marks, x, y) > 1 for chart in charts)]
    hint = f"there are: {', '.join(there)}" if there else "detrbench run SUITE --measure complexity counts GFLOPs"
    raise UsageError(f"{name}: fewer than two rows have both figures", hint=hint)
