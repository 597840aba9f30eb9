"""The words that detrbench says of a difference: better, worse, same, unclear, undecided. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from detrbench import statistics
from detrbench.compare.differences import FALSE_VERDICTS, About, Difference
from detrbench.compare.quantities import Quantity
from detrbench.statistics import Evidence

Verdict = Literal["better", "worse", "same", "unclear", "undecided"]


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
    """What may be said of a quantity that differs so from one cell to another, with the quantity's own margin.

    `undecided`: a side was trained once, so that another seed might turn the difference round.
    """
    if not difference.comparable:
        return "unclear"
    if difference.about == "training":
        return "undecided"
    return verdict(difference.evidence, quantity.margin, quantity.better, neutral=_neutral(quantity))


def of_family(family: Sequence[tuple[Difference, Quantity]]) -> list[Verdict]:
    """The verdicts of comparisons that are read together.

    After Holm's procedure, the probability that any of them says better or worse of equals is at most `FALSE_VERDICTS`,
    where each by itself would have that probability. What could find nothing, however large, is no member.
    """
    found = [verdict_on(*each) for each in family]
    members = [i for i, (difference, _) in enumerate(family) if difference.detectable() is not None]
    told = statistics.holm([_p_of_equals(*family[i]) for i in members], FALSE_VERDICTS)
    doubtful = {i for i, rejected in zip(members, told) if not rejected}
    return ["unclear" if i in doubtful and word in ("better", "worse") else word for i, word in enumerate(found)]


def _p_of_equals(difference: Difference, quantity: Quantity) -> float:
    """How probable a difference as large, either way, is between equals."""
    neutral = _neutral(quantity)
    return 2 * min(difference.evidence.p_above(neutral), difference.evidence.p_below(neutral))


def _neutral(quantity: Quantity) -> float:
    return 1.0 if quantity.relative else 0.0


def worded(word: Verdict, about: About) -> str:
    """A verdict with what it holds for: `undecided (one seed)`, `better on these weights`; of methods just the word."""
    return f"{word} {scope(word, about)}".rstrip()


def scope(word: Verdict, about: About) -> str:
    """What a verdict holds for, where that is not the method."""
    return "(one seed)" if word == "undecided" else "on these weights" if about == "weights" else ""
