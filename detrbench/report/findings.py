"""What the figures say, in sentences of a fixed vocabulary: better, worse, same, unclear."""

from __future__ import annotations

import math
from dataclasses import dataclass

from detrbench.report import labels
from detrbench.report.columns import gflops_difference
from detrbench.report.sections import Entry, Section, number

SAME_AP = 0.2  # AP points: an interval of the difference inside +-0.2 is called the same


@dataclass(frozen=True)
class Difference:
    """A difference with its interval."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """One of: better, worse, same, unclear. `better` is more."""
        if self.low > 0:
            return "better"
        if self.high < 0:
            return "worse"
        return "same" if self.low >= -SAME_AP and self.high <= SAME_AP else "unclear"


def make(section: Section) -> list[str]:
    """Sentences about one section, from its figures alone."""
    return [*_gflops_met(section), *_accuracy(section)]


def _gflops_met(section: Section) -> list[str]:
    found = [(entry, d) for entry in section.entries if (d := gflops_difference(entry)) is not None]
    if not found:
        return []
    near = sum(abs(difference) <= 0.5 for _, difference in found)
    entry, largest = max(found, key=lambda pair: abs(pair[1]))
    return [
        f"Published GFLOPs are met within 0.5 % by {near} of {len(found)} rows, each under the protocol of its table; "
        f"the largest difference is {labels.fixed(largest, 1, sign=True)} % ({entry.id})."
    ]


def _accuracy(section: Section) -> list[str]:
    """Each measured AP against that of the costliest measured row."""
    known = [(entry, ap) for entry in section.entries if (ap := _ap(entry)) is not None]
    if len(known) < 2:
        return []
    base, reference = max(known, key=lambda pair: _gflops(pair[0]) or 0.0)
    sentences = []
    for entry, ap in known:
        if entry is base:
            continue
        difference = independent_difference(ap, reference)
        sides = labels.interval(difference.low, difference.high, 1)
        sentences.append(
            f"{entry.id} against {base.id}, {section.scale} scale: {labels.fixed(difference.value, 1, sign=True)} AP "
            f"{sides}{_at(entry, base)}: {difference.verdict}."
        )
    return sentences


def independent_difference(a: tuple[float, float, float], b: tuple[float, float, float]) -> Difference:
    """A - b for two (value, low, high), as if taken on different images.

    Both are taken on the same images, so the true interval is narrower: a verdict here is on the careful side.
    """
    value = a[0] - b[0]
    return Difference(value, value - math.hypot(a[0] - a[1], b[2] - b[0]), value + math.hypot(a[2] - a[0], b[0] - b[1]))


def _ap(entry: Entry) -> tuple[float, float, float] | None:
    record = entry.record("accuracy", entry.either("accuracy"))
    value, low, high = (number(record, "ap", key) for key in ("value", "low", "high"))
    return None if value is None or low is None or high is None else (value, low, high)


def _gflops(entry: Entry) -> float | None:
    return number(entry.record("complexity", "common"), "gflops")


def _at(entry: Entry, base: Entry) -> str:
    mine, theirs = _gflops(entry), _gflops(base)
    if mine is None or theirs is None:
        return ""
    return f" at {labels.fixed(mine, 1)} against {labels.fixed(theirs, 1)} GFLOPs"
