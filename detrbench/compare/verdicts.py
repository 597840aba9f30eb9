"""The four words that detrbench says of a difference: better, worse, same, unclear. Imports no torch."""

from __future__ import annotations

from typing import Literal

from detrbench.compare.differences import Difference
from detrbench.compare.quantities import Quantity
from detrbench.statistics import Evidence

Verdict = Literal["better", "worse", "same", "unclear"]


def verdict(
    difference: Evidence,
    margin: float,
    better: Literal["higher", "lower"],
    neutral: float = 0.0,
    confidence: float = 0.95,
) -> Verdict:
    """What the interval of a difference (or, with `neutral` 1, of a ratio) allows to say.

    Args:
        difference: new minus old, or new over old.
        margin: differences up to this size do not matter; a ratio's margin is a share (0.02: from 1/1.02 to 1.02).
        better: which direction is welcome.
        neutral: the value that stands for no difference.
        confidence: of the interval.

    Returns:
        `same`: the whole interval lies within the margin, so whatever the difference is, it does not matter.
        `better`, `worse`: the whole interval lies on one side of `neutral`.
        `unclear`: neither; a longer measurement may tell.
    """
    low, high = difference.interval(confidence)
    inner, outer = (neutral - margin, neutral + margin) if neutral == 0 else (neutral / (1 + margin), neutral + margin)
    if inner <= low and high <= outer:
        return "same"
    if low > neutral:
        return "better" if better == "higher" else "worse"
    if high < neutral:
        return "worse" if better == "higher" else "better"
    return "unclear"


def verdict_on(difference: Difference, quantity: Quantity) -> Verdict:
    """What may be said of a quantity that differs so from one cell to another, with the quantity's own margin."""
    if not difference.comparable:
        return "unclear"
    return verdict(difference.evidence, quantity.margin, quantity.better, neutral=1.0 if quantity.relative else 0.0)
