"""AP against cost: which points a chart has, of one table or of all, and the one sentence that it says.

A published AP is hollow, a measured one filled. They share a chart only where both are AP on all of COCO val2017; what
was measured under any other condition has charts of its own, against costs of the detector that was evaluated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from detrbench import published as published_tables
from detrbench.errors import UsageError, unknown_name
from detrbench.measures import COMMON
from detrbench.report import labels
from detrbench.report.identity import METHODS, Identity
from detrbench.report.sections import Entry, Section, number

COCO = "COCO val2017"
ALIKE = 0.5  # AP points within which the headline's sentence calls a saving cheap
SAVED = 0.05  # the least share of a cost worth a sentence


@dataclass(frozen=True)
class Axis:
    """What a chart may have across or upwards; `label` stands at the axis, `words` in a sentence."""

    key: str
    label: str
    words: str
    decimals: int = 1


COSTS = {
    axis.key: axis
    for axis in (
        Axis("gflops", "GFLOPs, counted alike (protocol common)", "GFLOPs"),
        Axis("gflops_published", "GFLOPs as published, each by its paper's rule", "published GFLOPs", 0),
        Axis("latency", "Latency of one forward, ms", "latency", 2),
        Axis("params", "Parameters, millions", "parameters"),
        Axis("memory", "Memory of one forward, MiB", "memory"),
    )
}
FIGURES = {
    axis.key: axis
    for axis in (Axis("AP", "AP", "AP"), Axis("AP50", "AP50", "AP50"), Axis("APS", "AP of small objects", "APS"),
                 Axis("Corr", "Corr", "Corr", 3))
}  # fmt: skip


@dataclass(frozen=True)
class Mark:
    """One point: a row with a figure, published or measured.

    Attributes:
        row: the id of the table row that it stands for.
        identity: which detector.
        x: costs by key of COSTS.
        y: figures by key of FIGURES.
        spans: 95 % intervals of what was measured, by the same keys.
        epochs: trained for; empty where that is not known.
        source: where it stands: "Focus-DETR, Table 6".
        measured: here, and not by the paper.
        curve: equal for points that a declared sweep joins; empty for a point alone.
        at: where it stands in the sweep.
    """

    row: str
    identity: Identity
    x: Mapping[str, float]
    y: Mapping[str, float]
    spans: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    epochs: str = ""
    source: str = ""
    measured: bool = False
    curve: str = ""
    at: float | None = None

    @property
    def name(self) -> str:
        """The detector and where it stands in its sweep."""
        at = self.identity.kept if self.at is None else self.at
        return self.identity.name if at is None else f"{self.identity.name}, {at:g}"


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
    others: Mapping[str, str] = field(default_factory=dict)  # label of another figure upwards, by key

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
        """The same points on other axes.

        Raises:
            UsageError: an axis that is not known, or of which fewer than two points have a figure.
        """
        for key, known in ((x, COSTS), (y, FIGURES)):
            if key not in known:
                raise unknown_name("axis", key, known)
        if _count(self.marks, x, y) < 2:
            has = ", ".join(sorted({f"{a} with {b}" for a in COSTS for b in FIGURES if _count(self.marks, a, b) > 1}))
            hint = f"there are: {has}" if has else "detrbench run SUITE --measure complexity counts"
            raise UsageError(f"{self.title}: fewer than two points have both {x} and {y}", hint=hint)
        label = self.y_label if y == self.y else self.y_label.replace(self.y, FIGURES[y].label, 1)
        return replace(self, x=x, y=y, y_label=label)


def _count(marks: Iterable[Mark], x: str, y: str) -> int:
    return sum(x in mark.x and y in mark.y for mark in marks)


# What is where


def published_marks(section: Section) -> Iterator[Mark]:
    """A hollow point for each row with a published AP: at the published cost and at those of the same detector here."""
    for entry in section.entries:
        figures = _published_figures(entry)
        costs = _published_costs(entry) | _counted(entry)
        if section.scale == "paper":
            costs |= _timed(entry)
        if figures and costs:
            yield Mark(
                entry.id,
                entry.identity,
                costs,
                figures,
                epochs=_epochs(section, entry),
                source=_source(entry),
                curve=section.curve(entry),
                at=section.swept(entry),
            )


def measured_marks(section: Section) -> Iterator[Mark]:
    """A filled point for each row with a measured AP, at the costs of the detector that was evaluated."""
    for entry in section.entries:
        record = entry.record("accuracy", entry.either("accuracy"))
        figures = {key: number(record, "stats", key) for key in ("AP50", "APS")}
        figures |= {"AP": number(record, "ap", "value"), "Corr": number(entry.record("dam", entry.first("dam")), "corr", "value")}
        known = {key: value for key, value in figures.items() if value is not None}
        costs = _timed(entry) | (_counted(entry) if entry.counted_is_evaluated else {})
        if "AP" not in known or not costs:
            continue
        backbone = str(entry.changed.get("backbone", entry.identity.backbone))
        yield Mark(
            entry.id,
            replace(entry.identity, backbone=backbone),
            costs,
            known,
            spans=_spans(entry),
            epochs=_epochs(section, entry) if section.scale == "paper" else _trained(entry),
            source=f"measured, {section.suite}, protocol {entry.either('accuracy')}",
            measured=True,
            curve=section.curve(entry),
            at=section.swept(entry),
        )


def _spans(entry: Entry) -> dict[str, tuple[float, float]]:
    latency, accuracy = (entry.record("latency", entry.first("latency")), entry.record("accuracy", entry.either("accuracy")))
    found = {
        key: (number(record, *path, "low"), number(record, *path, "high"))
        for key, record, path in (("AP", accuracy, ("ap",)), ("AP50", accuracy, ("ap50",)), ("latency", latency, ("median_ms",)))
    }
    return {key: (low, high) for key, (low, high) in found.items() if low is not None and high is not None}


def _published_figures(entry: Entry) -> dict[str, float]:
    """AP as printed; not where the paper's own Corr is another figure than ours."""
    if entry.published is None:
        return {}
    values = entry.published.values
    found = {key: number(values, key) for key in ("AP", "AP50", "APS")}
    if "corr_mean" not in entry.published.not_reproduced:
        found["Corr"] = number(values, "corr_mean")
    return {key: value for key, value in found.items() if value is not None} if found["AP"] is not None else {}


def _published_costs(entry: Entry) -> dict[str, float]:
    value = number(entry.published.values, "gflops") if entry.published else None
    params = number(entry.published.values, "params_M") if entry.published else None
    found = {"gflops_published": value, "params": params}
    return {key: value for key, value in found.items() if value is not None}


def _counted(entry: Entry) -> dict[str, float]:
    found = {
        "gflops": number(entry.record("complexity", COMMON), "gflops"),
        "params": number(entry.record("complexity", entry.first("complexity")), "params_millions"),
    }
    return {key: value for key, value in found.items() if value is not None}


def _timed(entry: Entry) -> dict[str, float]:
    found = {
        "latency": number(entry.record("latency", entry.first("latency")), "median_ms", "value"),
        "memory": number(entry.record("memory", entry.first("memory")), "forward_mib"),
    }
    return {key: value for key, value in found.items() if value is not None}


def _epochs(section: Section, entry: Entry) -> str:
    """As the paper prints it, else as the cell says at the paper's scale."""
    printed = entry.published.values.get("epochs") if entry.published else None
    if printed is None and section.scale == "paper" and entry.cell is not None:
        printed = (entry.cell.cell.get("resolved") or {}).get("epochs")
    return "" if printed is None else labels.printed(printed)


def _trained(entry: Entry) -> str:
    epochs = len(entry.record("training", entry.first("training")).get("epochs") or [])
    return str(epochs) if epochs else ""


def _source(entry: Entry) -> str:
    assert entry.published is not None
    return f"{published_tables.load(entry.published.table).paper}, {labels.table_name(entry.published.table)}"


# Charts


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
        + ("GFLOPs are ours, each detector counted once by one rule. " if x == "gflops" else "GFLOPs as published. ")
        + "Of several figures of one detector the best. Stars: what the methods start from. "
        "Dashed: for one length of training, no other point has more AP for less."
    )
    chart = Chart("ap_gflops", "AP against GFLOPs", kept, x, "AP", f"AP, {COCO}", caption, wide=True)
    return replace(chart, sentence=sentence(chart))


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
    x = next((cost for cost in ("gflops", "latency", "memory") if _count(marks, cost, "AP") > 1), None)
    if x is None:
        return None
    changed = ", ".join(f"{labels.label(name).lower()} {value}" for name, value in section.changed.items())
    of = f"detectors with {changed}" if changed else "the detectors as counted"
    at = f"AP measured at {section.condition}, {of}, with its 95 % interval"
    chart = Chart(
        key, f"AP against {COSTS[x].words}", marks, x, "AP", f"AP, {section.condition}", f"{at}. {_counts_of(section, x)}"
    )
    return replace(chart, sentence=sentence(chart))


def _counts_of(section: Section, x: str) -> str:
    if x == "gflops":
        return "GFLOPs under common: one forward at the size of COCO's images."
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
            Chart(f"{section.anchor}-ap", "AP against GFLOPs", marks, x, "AP", f"AP, {COCO}", f"{what} {COSTS[x].label}.")
        )
    if not together:
        made.append(measured(section, f"{section.anchor}-measured"))
    return [chart for chart in made if chart is not None]


# What a chart says


def sentence(chart: Chart) -> str:
    """The saving at the least loss: a method against the base that it changes, trained as long and from one source."""
    best: tuple[float, float, Mark, Mark] | None = None
    for base in _best_of_each([mark for mark in chart.shown if mark.identity.is_baseline]):
        for mark in chart.shown:
            if mark.identity.is_baseline or not _compared(mark, base):
                continue
            saved, lost = 1 - mark.x[chart.x] / base.x[chart.x], base.y["AP"] - mark.y["AP"]
            if saved >= SAVED and lost <= ALIKE + 1e-9 and (best is None or (saved, -lost) > (best[0], -best[1])):
                best = (saved, lost, mark, base)
    if best is None:
        return ""
    saved, lost, mark, base = best
    at = "" if mark.identity.kept is None else f" at a keep ratio of {mark.identity.kept:g}"
    price = f"for {lost:.1f} AP" if lost > 0.05 else f"and gains {-lost:.1f} AP" if lost < -0.05 else "at equal AP"
    whose = f"{_paper(mark)}, both as published" if not mark.measured else "on these weights"
    words = COSTS[chart.x].words
    return f"{mark.identity.method}{at} saves {100 * saved:.0f} % of {base.identity.base}'s {words} {price} ({whose})."


def _best_of_each(marks: list[Mark]) -> list[Mark]:
    return list({m.identity.series: m for m in sorted(marks, key=lambda mark: mark.y["AP"])}.values())


def _compared(mark: Mark, base: Mark) -> bool:
    """Whether two points differ in the method alone: one base, trained as long, in one paper or one run."""
    one, other = ((*m.identity.series[1:], m.epochs, m.measured, _paper(m)) for m in (mark, base))
    return one == other


def _paper(mark: Mark) -> str:
    return mark.source.partition(",")[0]


def named(marks: list[Mark]) -> list[tuple[Mark, str]]:
    """The label of one point for each curve, base and method: short, and telling it from all others of the chart."""
    groups: dict[tuple[str, ...], list[Mark]] = {}
    for mark in marks:
        alone = (*mark.identity.series, "measured" if mark.measured else "")
        groups.setdefault((mark.curve, *alone) if mark.curve else ("", *alone), []).append(mark)
    short = _short_names([mark.identity for mark in marks])
    curves = {group[1:] for group in groups if group[0]}
    found = []
    for group, mine in groups.items():
        if not group[0] and group[1:] in curves and not mine[0].identity.is_baseline:
            continue  # a point of a method whose curve is labelled
        best = max(mine, key=lambda mark: mark.at or 0.0 if group[0] else mark.y.get("AP", 0.0))
        values = sorted({mark.at for mark in mine if mark.at is not None})
        through = f", {values[0]:g} to {values[-1]:g}" if len(values) > 1 else ""
        found.append((best, short[best.identity.series] + through))
    return sorted(found, key=lambda one: not one[0].curve)


def _short_names(identities: list[Identity]) -> dict[tuple[str, ...], str]:
    """By series: the shortest of its names that no other series has."""
    ways: list[Callable[[Identity], str]] = [
        lambda i: i.method,
        lambda i: i.base if i.is_baseline else f"{i.method} on {i.base}",
        lambda i: i.name,
        lambda i: f"{i.name}, {labels.shown('backbone', i.backbone)}",
    ]
    distinct = {i.series: i for i in identities}
    names: dict[tuple[str, ...], str] = {}
    for series, one in distinct.items():
        for way in ways:
            names[series] = way(one)
            if sum(way(other) == way(one) for other in distinct.values()) == 1:
                break
    return names


def lengths(chart: Chart) -> list[tuple[str, list[Mark]]]:
    """For each length of training the points that none of it beats on both axes, cheapest first."""
    groups: dict[str, list[Mark]] = {}
    for mark in chart.shown:
        if mark.epochs:
            groups.setdefault(mark.epochs, []).append(mark)
    found = []
    for epochs, mine in sorted(groups.items(), key=lambda item: (len(item[0]), item[0])):
        best = unbeaten(mine, chart.x, chart.y)
        if len(best) > 1 and len(mine) > 2:
            found.append((epochs, best))
    return found


def unbeaten(marks: Iterable[Mark], x: str, y: str) -> list[Mark]:
    """The points than which no other has both more upwards and less cost, cheapest first."""
    best: list[Mark] = []
    for mark in sorted(marks, key=lambda m: (m.x[x], -m.y[y])):
        if not best or mark.y[y] > best[-1].y[y]:
            best.append(mark)
    return best


def tip(mark: Mark, x: str, y: str) -> str:
    """What a point says: figure, cost, length of training, where it stands, and the GFLOPs by both rules."""
    figure = f"{labels.fixed(mark.y[y], FIGURES[y].decimals)} {FIGURES[y].words}"
    if y in mark.spans:
        figure += f" {labels.interval(*mark.spans[y], FIGURES[y].decimals)}"
    costs = [f"{labels.fixed(mark.x[x], COSTS[x].decimals)} {COSTS[x].words}"]
    costs += [f"{labels.fixed(mark.x[k], COSTS[k].decimals)} {COSTS[k].words}" for k in COSTS if k in mark.x and k != x and k.startswith("gflops")]  # fmt: skip
    after = f", {mark.epochs} epochs" if mark.epochs else ""
    costs[0] += f" {labels.interval(*mark.spans[x], COSTS[x].decimals)}" if x in mark.spans else ""
    return f"{mark.name}: {figure} at {', '.join(costs)}{after} ({mark.source})"


def families(marks: Iterable[Mark]) -> list[str]:
    """The methods that a chart has points of, in the order of the palette."""
    there = {mark.identity.family for mark in marks}
    return [name for name in METHODS if name in there]
