from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from detrbench import statistics


def test_resample_counts_are_multiplicities() -> None:
    counts = statistics.resample_counts(7, 50, seed=3)
    assert counts.shape == (50, 7)
    assert (counts.sum(1) == 7).all()
    assert counts.max() > 1
    assert (counts == statistics.resample_counts(7, 50, seed=3)).all()
    assert (counts != statistics.resample_counts(7, 50, seed=4)).any()


def test_bootstrap_mean_meets_the_normal_interval() -> None:
    samples = np.random.default_rng(0).normal(10, 2, 400)
    found = statistics.bootstrap_mean(samples, "ms")
    half = 1.96 * samples.std() / math.sqrt(400)
    assert found.value == pytest.approx(samples.mean())
    assert found.n == 400
    assert found.low == pytest.approx(samples.mean() - half, abs=0.2 * half)
    assert found.high == pytest.approx(samples.mean() + half, abs=0.2 * half)


def test_bootstrap_mean_of_three_is_the_exact_distribution() -> None:
    samples = [0.0, 1.0, 5.0]
    exact = [np.mean(pick) for pick in itertools.product(samples, repeat=3)]
    means = statistics.resample_counts(3, 20_000) @ np.array(samples) / 3
    assert np.mean(means) == pytest.approx(np.mean(exact), abs=0.05)
    assert np.std(means) == pytest.approx(np.std(exact), abs=0.05)


@pytest.mark.parametrize(("samples", "n"), [([], 0), ([2.0], 1), ([2.0, math.nan], 1)])
def test_too_few_samples_have_no_interval(samples: list[float], n: int) -> None:
    found = statistics.bootstrap_mean(samples, "ms")
    assert found.n == n
    assert found.low is None
    assert found.high is None


# Exact ranks (from 0) of the 95 % interval of a median, as statistical tables print them (from 1: +1).
@pytest.mark.parametrize(("n", "rank"), [(0, None), (5, None), (6, 0), (9, 1), (10, 1), (20, 5), (30, 9), (100, 39)])
def test_median_rank(n: int, rank: int | None) -> None:
    assert statistics.median_rank(n) == rank


@pytest.mark.parametrize("n", [6, 15, 40])
def test_median_interval_covers(n: int) -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(1000):
        found = statistics.median(rng.exponential(1, n), "ms")
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= math.log(2) <= found.high
    assert hits >= 930


def test_median_of_many_samples_does_not_underflow() -> None:
    found = statistics.median(np.arange(5001), "ms")
    assert found.value == 2500
    assert found.low == pytest.approx(2500 - 1.96 * math.sqrt(5001) / 2, abs=1.5)


def test_percentile() -> None:
    assert statistics.percentile([1, 2, 3, 4, 5], 0.95) == pytest.approx(4.8)


def test_ratios_keep_clusters_together() -> None:
    # Two quantities over clusters of 1, 3 and 0 items.
    first, second = statistics.bootstrap_ratios([[2, 0, 0], [1, 3, 0]], [1, 3, 0], "each")
    assert (first.value, first.n, first.unit) == (0.5, 3, "each")
    # A resample holds only the first cluster (2 an item), only the second (0), or both.
    assert (first.low, first.high) == (0, 2)
    assert (second.value, second.low, second.high) == (1, 1, 1)
    assert math.isnan(statistics.bootstrap_ratios([[0, 0]], [0, 0], "each")[0].value)
    assert statistics.bootstrap_ratios([[4]], [2], "each")[0].low is None
