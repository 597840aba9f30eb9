"""Intervals and comparisons: pure numpy, seeded, no torch.

Everything that is estimated carries an interval, and two variants are compared on what they share: the same images,
the same rounds. Replicates are drawn as multiplicities (how often each item is taken), so that a statistic can be
recomputed by weighting instead of copying.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from detrbench.records import Estimate

Floats = npt.NDArray[np.float64]
REPLICATES = 1000


def resample_counts(n: int, replicates: int = REPLICATES, seed: int = 0) -> npt.NDArray[np.int64]:
    """(replicates, n): how often a bootstrap resample of n items takes each one; rows sum to n."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n, np.full(n, 1 / n), size=replicates)


def percentile_interval(replicates: npt.ArrayLike, confidence: float = 0.95) -> tuple[float, float] | None:
    """The central share `confidence` of bootstrap replicates, NaN left out; None where fewer than two remain."""
    values = np.asarray(replicates, dtype=float)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def estimate(value: float, replicates: npt.ArrayLike, unit: str, n: int, confidence: float = 0.95) -> Estimate:
    """A figure with the percentile interval of its replicates."""
    low, high = percentile_interval(replicates, confidence) or (None, None)
    return Estimate(value, unit, n, low, high, confidence)


def bootstrap_mean(samples: npt.ArrayLike, unit: str, confidence: float = 0.95, seed: int = 0) -> Estimate:
    """The mean of independent samples with its bootstrap interval; NaN samples are left out."""
    values = np.asarray(samples, dtype=float)
    values = values[~np.isnan(values)]
    if not len(values):
        return Estimate(math.nan, unit, 0, confidence=confidence)
    means = resample_counts(len(values), seed=seed) @ values / len(values)
    return estimate(float(values.mean()), means if len(values) > 1 else [], unit, len(values), confidence)


def median(samples: npt.ArrayLike, unit: str, confidence: float = 0.95) -> Estimate:
    """The median with its distribution-free interval by order statistics; no interval where n is too small for it."""
    values = np.sort(np.asarray(samples, dtype=float))
    rank = median_rank(len(values), confidence)
    low, high = (None, None) if rank is None else (float(values[rank]), float(values[-1 - rank]))
    return Estimate(float(np.median(values)), unit, len(values), low, high, confidence)


def median_rank(n: int, confidence: float = 0.95) -> int | None:
    """The largest r such that the order statistics r and n-1-r (from 0) enclose the median with that confidence.

    The number of samples below the median is Binomial(n, 1/2), so they miss it with probability 2 P(X <= r).
    None where even the extremes do not reach it (n < 6 at 0.95).
    """
    if not n:
        return None
    log_half = n * math.log(0.5)
    miss = 0.0
    for rank in range(n // 2 + 1):
        log_choose = math.lgamma(n + 1) - math.lgamma(rank + 1) - math.lgamma(n - rank + 1)
        miss += 2 * math.exp(log_choose + log_half)
        if miss > 1 - confidence:
            return rank - 1 if rank else None
    return n // 2


def paired_difference(
    first: npt.ArrayLike, second: npt.ArrayLike, unit: str, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """Mean of `first - second` over the same items, with its bootstrap interval over items.

    Raises:
        ValueError: the two do not have the same length.
    """
    a, b = _same_length(first, second)
    return bootstrap_mean(a - b, unit, confidence, seed)


def paired_ratio_of_medians(
    first: npt.ArrayLike, second: npt.ArrayLike, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """median(first) / median(second), resampling rounds that both share: what a noisy machine does to both cancels.

    Raises:
        ValueError: the two do not have the same length.
    """
    a, b = _same_length(first, second)
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(a), size=(REPLICATES, len(a)))
    ratios = np.median(a[picks], axis=1) / np.median(b[picks], axis=1)
    return estimate(float(np.median(a) / np.median(b)), ratios if len(a) > 1 else [], "ratio", len(a), confidence)


def _same_length(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[Floats, Floats]:
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.shape != b.shape:
        raise ValueError(f"paired samples differ in length: {a.shape} and {b.shape}")
    return a, b


def verdict(difference: Estimate, neutral: float = 0.0) -> Literal["higher", "lower", "undecided"]:
    """What an interval of a difference (or of a ratio, with `neutral` 1) allows to say."""
    if difference.low is None or difference.high is None:
        return "undecided"
    if difference.low > neutral:
        return "higher"
    return "lower" if difference.high < neutral else "undecided"


def percentile(samples: Sequence[float], share: float) -> float:
    """The value that `share` (0..1) of the samples do not exceed, interpolated."""
    return float(np.quantile(np.asarray(samples, dtype=float), share))
