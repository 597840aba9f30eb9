"""What a chart says in words: its sentence, the names of its points, and which of them nothing beats."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable

from detrbench.report import labels
from detrbench.report.identity import METHODS, Identity
from detrbench.report.marks import COSTS, FIGURES, Mark

ALIKE = 0.5  # AP points within which a sentence calls a saving cheap
LEARNT = 1.0  # AP points below which a detector found nothing, and saves nothing
SAVED = 0.05  # the least share of a cost worth a sentence


def sentence(shown: list[Mark], x: str) -> str:
    """The saving at the least loss: a method against the base that it changes, trained as long and from one source."""
    best: tuple[float, float, Mark, Mark] | None = None
    for base in _best_of_each([mark for mark in shown if mark.identity.is_baseline and mark.y["AP"] >= LEARNT]):
        for mark in shown:
            if mark.identity.is_baseline or not _compared(mark, base):
                continue
            saved, lost = 1 - mark.x[x] / base.x[x], base.y["AP"] - mark.y["AP"]
            if saved >= SAVED and lost <= ALIKE + 1e-9 and (best is None or (saved, -lost) > (best[0], -best[1])):
                best = (saved, lost, mark, base)
    if best is None:
        return ""
    saved, lost, mark, base = best
    at = "" if mark.identity.kept is None else f" at a keep ratio of {mark.identity.kept:g}"
    price = f"for {lost:.1f} AP" if lost > 0.05 else f"and gains {-lost:.1f} AP" if lost < -0.05 else "at equal AP"
    if _overlap(mark, base):
        price = f"at no clear difference in AP, {mark.y['AP']:.1f} against {base.y['AP']:.1f}"
    whose = f"{_paper(mark)}, both as published" if not mark.measured else _whose(mark, base)
    words = COSTS[x].words
    return f"{mark.identity.method}{at} saves {100 * saved:.0f} % of {base.identity.base}'s {words} {price} ({whose})."


def _whose(mark: Mark, base: Mark) -> str:
    return "on these weights" if None in (mark.seeds, base.seeds) else "means over seeds"


def _overlap(mark: Mark, base: Mark) -> bool:
    """Whether the intervals of two measured APs have values in common; those of a paper have none."""
    if "AP" not in mark.spans or "AP" not in base.spans:
        return False
    (low, high), (other_low, other_high) = mark.spans["AP"], base.spans["AP"]
    return low <= other_high and other_low <= high


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
    short = short_names([mark.identity for mark in marks])
    curves = Counter(group[1:] for group in groups if group[0])
    found = []
    for group, mine in groups.items():
        if not group[0] and group[1:] in curves and not mine[0].identity.is_baseline:
            continue  # a point of a method whose curve is labelled
        best = max(mine, key=lambda mark: mark.at or 0.0 if group[0] else mark.y.get("AP", 0.0))
        values = sorted({mark.at for mark in mine if mark.at is not None})
        through = f", {values[0]:g} to {values[-1]:g}" if len(values) > 1 else ""
        which = f" ({_stem(mine)})" if group[0] and curves[group[1:]] > 1 else ""
        found.append((best, short[best.identity.series] + through + which))
    return sorted(found, key=lambda one: not one[0].curve)


def _stem(marks: list[Mark]) -> str:
    """The words with which the ids of all rows of a curve begin: "no-encoder-loss"; their first id, if none does."""
    ids = [mark.row.rpartition(": ")[2] for mark in marks]
    shared = itertools.takewhile(lambda words: len(set(words)) == 1, zip(*(id_.split("-") for id_ in ids)))
    return "-".join(words[0] for words in shared) or ids[0]


def short_names(identities: list[Identity]) -> dict[tuple[str, ...], str]:
    """By series: the shortest of its names that no other series has."""
    ways: list[Callable[[Identity], str]] = [
        lambda i: i.method,
        lambda i: f"{i.method} on {i.base}" if i.known and not i.is_baseline else i.method,
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


def lengths(shown: list[Mark], x: str, y: str) -> list[tuple[str, list[Mark]]]:
    """For each length of training the points that none of it beats on both axes, cheapest first."""
    groups: dict[str, list[Mark]] = {}
    for mark in shown:
        if mark.epochs:
            groups.setdefault(mark.epochs, []).append(mark)
    found = []
    for epochs, mine in sorted(groups.items(), key=lambda item: (len(item[0]), item[0])):
        best = unbeaten(mine, x, y)
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
    if mark.seeds and y == "AP":
        figure += f" ± {labels.fixed(mark.seeds[1], 1)} (SD of {mark.seeds[0]} seeds)"
    if y in mark.spans:
        figure += f" {labels.interval(*mark.spans[y], FIGURES[y].decimals)}"
    others = [key for key in COSTS if key in mark.x and key != x and key.startswith("gflops")]
    costs = [f"{labels.fixed(mark.x[key], COSTS[key].decimals)} {COSTS[key].words}" for key in (x, *others)]
    after = f", {mark.epochs} epochs" if mark.epochs else ""
    costs[0] += f" {labels.interval(*mark.spans[x], COSTS[x].decimals)}" if x in mark.spans else ""
    return f"{mark.name}: {figure} at {', '.join(costs)}{after} ({mark.source})"


def bases(marks: Iterable[Mark]) -> dict[str, str]:
    """The bases that a chart's methods change, each with the marker that it gives them."""
    return {mark.identity.base: mark.identity.marker for mark in marks if not mark.identity.is_baseline}


def families(marks: Iterable[Mark]) -> list[str]:
    """The methods that a chart has points of, in the order of the palette."""
    there = {mark.identity.family for mark in marks}
    return [name for name in METHODS if name in there]
