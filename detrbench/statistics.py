"""Intervals and comparisons: pure numpy, seeded, no torch.

Everything that is estimated carries an interval, and two variants are compared on what they share: the same images,
the same rounds. Replicates are drawn as multiplicities (how often each item is taken), so that a statistic can be
recomputed by weighting instead of copying.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detrbench.results.records import Estimate

Floats = npt.NDArray[np.float64]
REPLICATES = 1000
POWER = 0.8  # the share of true differences that a comparison is asked to find


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


def bootstrap_ratios(sums: npt.ArrayLike, counts: npt.ArrayLike, unit: str, seed: int = 0) -> list[Estimate]:
    """Means over items that come in n independent clusters (objects in images), with intervals by resampling clusters.

    Args:
        sums: (k, n) of k quantities, over the items of each cluster.
        counts: (n,) items of each cluster.
        unit: of all k.
        seed: of the resamples.

    Returns:
        k estimates; NaN without a single item.
    """
    totals, items = np.asarray(sums, dtype=float), np.asarray(counts, dtype=float)
    if not items.any():
        return [Estimate(math.nan, unit, len(items)) for _ in totals]
    drawn = resample_counts(len(items), seed=seed)
    with np.errstate(invalid="ignore"):  # a resample without items has no mean
        replicates = (drawn @ totals.T / (drawn @ items)[:, None]).T
    values = totals.sum(axis=1) / items.sum()
    enough = len(items) > 1
    return [estimate(float(v), r if enough else [], unit, len(items)) for v, r in zip(values, replicates)]


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


def percentile(samples: Sequence[float], share: float) -> float:
    """The value that `share` (0..1) of the samples do not exceed, interpolated."""
    return float(np.quantile(np.asarray(samples, dtype=float), share))


@dataclass(frozen=True)
class Evidence:
    """What is known of one quantity: Student's t around a value, on a linear or (for times and ratios) a log scale.

    Attributes:
        value: the best guess; positive where `log` is set.
        se: its standard error, on the log scale where `log` is set; 0 for a figure without noise, infinite where
            nothing is known of the noise.
        df: degrees of freedom; infinite for a normal distribution.
    """

    value: float
    se: float = 0.0
    df: float = math.inf
    log: bool = False

    @property
    def exact(self) -> bool:
        """Whether measuring again must give the same figure."""
        return self.se == 0

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The central interval of that confidence."""
        half = self.se * _student_quantile(self.df, (1 + confidence) / 2) if self.se else 0.0
        if self.log:
            return self.value * math.exp(-half), self.value * _exp(half)
        return self.value - half, self.value + half

    def p_above(self, limit: float) -> float:
        """How probable a value as high as this one is if the truth is `limit` or less: small means surely above."""
        return 1.0 - self._position(limit) if self.se else float(self.value <= limit)

    def p_below(self, limit: float) -> float:
        """How probable a value as low as this one is if the truth is `limit` or more: small means surely below."""
        return self._position(limit) if self.se else float(self.value >= limit)

    def _position(self, limit: float) -> float:
        """Student's distribution function at (value - limit) / se."""
        if self.log:
            distance = math.inf if limit <= 0 else math.log(self.value / limit)
        else:
            distance = self.value - limit
        if math.isinf(self.se):
            return 0.5
        return _student_cdf(self.df, distance / self.se)

    def detectable(self, confidence: float = 0.95) -> float:
        """The smallest difference that such evidence would most probably tell from none, in the units of `value`.

        In a share `POWER` of all comparisons with as much noise, a true difference of that size has an interval of that
        confidence which lies on one side of no difference (Bloom 1995). On a log scale it is a ratio above 1.
        """
        if not self.se or math.isinf(self.se):
            return math.nan if self.se else 0.0
        shares = (1 + confidence) / 2, POWER
        distance = self.se * sum(_student_quantile(self.df, share) for share in shares)
        return _exp(distance) if self.log else distance

    def estimate(self, unit: str, n: int, confidence: float = 0.95) -> Estimate:
        """The value with its interval, as records keep it; no interval where the noise is unknown."""
        low, high = (None, None) if math.isinf(self.se) else self.interval(confidence)
        return Estimate(self.value, unit, n, low, high, confidence)

    def minus(self, other: Evidence) -> Evidence:
        """The difference to an independent quantity."""
        se, df = _combined(self, other)
        return Evidence(self.value - other.value, se, df)

    def over(self, other: Evidence) -> Evidence:
        """The ratio to an independent quantity; both on a log scale or exact."""
        se, df = _combined(self, other)
        return Evidence(self.value / other.value, se, df, log=True)

    def scaled(self, factor: float, offset: float = 0.0) -> Evidence:
        """Factor * value + offset; an offset needs a linear scale (or no noise)."""
        if self.log and offset and self.se:
            raise ValueError("an offset has no meaning on a log scale")
        value = factor * self.value + offset
        return dataclasses.replace(self, value=value, se=self.se if self.log else abs(factor) * self.se)


def _combined(a: Evidence, b: Evidence) -> tuple[float, float]:
    """(standard error, degrees of freedom after Welch and Satterthwaite) of a difference."""
    if a.se == 0 or b.se == 0:
        return a.se + b.se, min(a.df, b.df) if a.se == b.se else (a.df if a.se else b.df)
    if math.isinf(a.se) or math.isinf(b.se):
        return math.inf, 1.0
    variance = a.se**2 + b.se**2
    denominator = a.se**4 / a.df + b.se**4 / b.df
    return math.sqrt(variance), variance**2 / denominator if denominator else math.inf


def _student_cdf(df: float, t: float) -> float:
    from scipy.special import ndtr, stdtr

    return float(ndtr(t)) if math.isinf(df) else float(stdtr(df, t))


def _student_quantile(df: float, share: float) -> float:
    from scipy.special import ndtri, stdtrit

    return float(ndtri(share)) if math.isinf(df) else float(stdtrit(df, share))


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def from_replicates(value: float, replicates: npt.ArrayLike) -> Evidence:
    """A value with the standard deviation of its bootstrap replicates, NaN left out, as a normal distribution."""
    drawn = np.asarray(replicates, dtype=float)
    drawn = drawn[np.isfinite(drawn)]
    return Evidence(value, float(drawn.std(ddof=1)) if len(drawn) > 1 else math.inf)


def of_seeds(values: Sequence[float], se_of_images: float) -> Evidence:
    """The mean of one figure over trainings that differ in their seed, for any other seed and other images.

    Two things vary: the training, and the images on which it is evaluated. Their variances add. That of the mean over
    n seeds is s^2 / n with n - 1 degrees of freedom, and that of the images comes from a bootstrap, which many images
    make as good as known; Welch and Satterthwaite's degrees of freedom weigh the two. A bootstrap that resamples seeds
    as well would do the same with many of them. With the three that anybody can afford it finds two thirds of s^2 and
    knows nothing of the doubt in it: of equals, it calls one in ten different. What a seed does to single images is in
    both variances, so intervals are rather too wide than too narrow.

    Args:
        values: of each training, two at least, on the same images.
        se_of_images: the standard error of their mean where nothing but the images is drawn anew.

    Returns:
        The mean with both.
    """
    found = np.asarray(values, dtype=float)
    seeds = Evidence(float(found.mean()), float(found.std(ddof=1)) / math.sqrt(len(found)), len(found) - 1.0)
    return seeds.minus(Evidence(0.0, se_of_images))


def spread(values: Sequence[float]) -> float | None:
    """The standard deviation of a figure between trainings; None of a single one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def of_processes(samples: Sequence[Sequence[float]]) -> Evidence:
    """The median time, from rounds timed in each of several processes; on a log scale; NaN samples are left out.

    Memory layout and placement differ from process to process but not from round to round, so a process counts as one
    observation (its median), however many rounds it ran: Student's t over processes. With a single process only the
    spread of its rounds is known, and the evidence says no more than that.
    """
    return _typical([np.log(np.asarray(each, dtype=float)) for each in samples])


def paired_ratio(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> Evidence:
    """How many times as long the first takes as the second, from rounds that both share, process by process.

    Each round gives one ratio, in which a slow spell that hit both cancels; then as `of_processes`. A round that is NaN
    on either side is left out.

    Raises:
        ValueError: the two do not have the same processes and rounds.
    """
    if [len(each) for each in first] != [len(each) for each in second]:
        raise ValueError("paired samples differ in length: not the same rounds")
    return _typical([np.log(np.asarray(a, dtype=float) / np.asarray(b, dtype=float)) for a, b in zip(first, second)])


def _typical(logs: Sequence[Floats]) -> Evidence:
    """The mean over processes of the median over rounds, back from the log scale."""
    clean = [each[~np.isnan(each)] for each in logs]
    if any(median_rank(len(each)) is None for each in clean):  # too few rounds for a median with an interval
        rest = np.concatenate([*clean, *([] if any(map(len, clean)) else logs)])
        return Evidence(math.exp(float(np.median(rest))), math.inf, 1.0, log=True)
    if len(clean) == 1:
        middle, se, df = _median_and_error(clean[0])
        return Evidence(math.exp(middle), se, df, log=True)
    medians = np.array([np.median(each) for each in clean])
    se = float(medians.std(ddof=1)) / math.sqrt(len(medians))
    return Evidence(math.exp(float(medians.mean())), se, len(medians) - 1, log=True)


def _median_and_error(values: Floats) -> tuple[float, float, float]:
    """(median, standard error, degrees of freedom): the error from the order statistics about the median.

    The two that enclose it with 95 % lie 2 x 1.96 standard errors apart (McKean and Schrader 1984).
    """
    ordered, n = np.sort(values), len(values)
    rank = median_rank(n)
    assert rank is not None
    # The exact probability that the ranks enclose, for it moves in steps: 97.9 % at n = 10, 95.7 % at n = 30.
    spread = 2 * _student_quantile(math.inf, (1 + _enclosed(n, rank)) / 2)
    return float(np.median(ordered)), float(ordered[-1 - rank] - ordered[rank]) / spread, n - 1.0


def _enclosed(n: int, rank: int) -> float:
    """The probability that order statistics `rank` and n-1-`rank` (from 0) enclose the median."""
    from scipy.special import bdtr

    return 1.0 - 2.0 * float(bdtr(rank, n, 0.5))


def holm(p_values: Sequence[float], alpha: float) -> list[bool]:
    """Which hypotheses Holm's step-down procedure rejects: any false rejection at all has probability alpha or less.

    Holds whatever the dependence between the tests (Holm 1979).
    """
    rejected = [False] * len(p_values)
    for step, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[index] > alpha / (len(p_values) - step):
            break
        rejected[index] = True
    return rejected
