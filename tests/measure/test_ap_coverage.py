"""Do intervals of AP, and of its differences, hold the truth? Simulated data sets, drawn anew each time.

An image has a difficulty of its own, which all its objects share: without it, resampling images would be no better than
resampling objects. The truth is the mean over all simulated data sets of that size.
"""

from __future__ import annotations

import numpy as np
import pytest

from detrbench import statistics
from detrbench.measure import ap_interval
from detrbench.measure.ap_interval import ClassMatches, Matches
from detrbench.statistics import Evidence

THRESHOLDS = np.arange(0.5, 1.0, 0.05)[:, None]


def draw(rng: np.random.Generator, images: int, classes: int) -> tuple[Matches, Matches]:
    """Two detectors on the same images: the second finds boxes a little worse."""
    ease = rng.normal(0, 1, images)
    first, second = [], []
    for _ in range(classes):
        objects = rng.poisson(0.5, images)
        found = np.repeat(np.arange(images), objects)
        found = found[rng.random(len(found)) < 0.9]
        fit = 0.4 + 0.5 * ease[found] + rng.normal(0, 1, len(found))
        wrong = rng.integers(0, images, rng.poisson(0.7 * images))
        for matches, penalty in ((first, 0.0), (second, 0.15)):
            quality = fit - penalty + rng.normal(0, 0.3, len(found))
            scores = np.concatenate([quality + rng.normal(0, 1, len(found)), rng.normal(-0.8, 1, len(wrong))])
            overlap = np.concatenate([0.5 + 0.5 / (1 + np.exp(-quality)), np.zeros(len(wrong))])
            order = np.argsort(-scores)
            hit = overlap[order] >= THRESHOLDS
            image = np.concatenate([found, wrong])[order]
            matches.append(ClassMatches(image, hit, np.zeros_like(hit), objects))
    return Matches(images, first), Matches(images, second)


def coverage(data_sets: int, images: int, replicates: int, classes: int) -> tuple[float, float]:
    """How often 95 % intervals hold the truth: of an AP, and of a paired difference of two."""
    rng, alone, paired = np.random.default_rng(images), [], []
    for seed in range(data_sets):
        both = draw(rng, images, classes)
        whole = [100 * ap_interval.weighted_ap(each, np.ones((1, images), dtype=np.int64))[0].mean() for each in both]
        drawn = [ap_interval.bootstrap(each, replicates, seed).ap for each in both]
        alone.append(statistics.from_replicates(whole[0], drawn[0]))
        paired.append(statistics.from_replicates(whole[0] - whole[1], drawn[0] - drawn[1]))
    return share_that_hold(alone), share_that_hold(paired)


def share_that_hold(found: list[Evidence]) -> float:
    truth = float(np.mean([each.value for each in found]))
    intervals = [each.interval() for each in found]
    return float(np.mean([low <= truth <= high for low, high in intervals]))


def test_intervals_of_ap_cover_quickly() -> None:
    alone, paired = coverage(120, 60, 60, classes=2)
    assert 0.88 <= alone <= 0.99
    assert 0.88 <= paired <= 0.99


@pytest.mark.full
def test_intervals_of_ap_cover() -> None:
    alone, paired = coverage(1000, 200, 150, classes=8)
    assert 0.93 <= alone <= 0.97
    assert 0.93 <= paired <= 0.97
