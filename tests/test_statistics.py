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


# ------------------------------------------------------------------------------------- figures worked out by hand


def test_the_median_is_the_middle_one() -> None:
    assert statistics.median([1, 2, 90], "ms").value == 2
    assert statistics.median([1, 2, 4, 90], "ms").value == 3
    found = statistics.median([9, 1, 2, 3, 4, 500], "ms")
    assert (found.value, found.low, found.high, found.n, found.unit) == (3.5, 1, 500, 6, "ms")


def test_processes_are_averaged_over_medians_on_a_log_scale() -> None:
    # Medians 2 and 8: their geometric mean is 4. A stray sample of a process moves nothing.
    rounds = [[2.0] * 6 + [1000.0], [8.0] * 7]
    found = statistics.of_processes(rounds)
    assert found.value == pytest.approx(4)
    # Standard error of two logs that lie log 4 apart: their deviation is log 4 / sqrt 2, over sqrt 2.
    assert (found.se, found.df, found.log) == (pytest.approx(math.log(4) / 2), 1, True)


def test_a_ratio_of_pairs_sees_no_spell_that_hits_both() -> None:
    spells = [1.0, 50.0, 3.0, 0.2, 7.0, 11.0, 2.0]
    second = [[10 * s for s in spells], [12 * s for s in reversed(spells)]]
    first = [[1.5 * value for value in each] for each in second]
    found = statistics.paired_ratio(first, second)
    assert found.value == pytest.approx(1.5)
    assert found.se == pytest.approx(0, abs=1e-12)
    assert statistics.paired_ratio(second, first).value == pytest.approx(1 / 1.5)
    alone = statistics.paired_ratio(first[:1], second[:1])  # the error of one process is that of its rounds
    assert (alone.value, alone.se) == (pytest.approx(1.5), pytest.approx(0, abs=1e-12))


def test_a_round_without_a_partner_is_left_out_of_a_ratio() -> None:
    second = [[1.0] * 8]
    first = [[2.0] * 7 + [math.nan]]
    assert statistics.paired_ratio(first, second).value == pytest.approx(2)
    with pytest.raises(ValueError, match="not the same rounds"):
        statistics.paired_ratio([[1.0] * 7], second)


def test_the_error_of_one_process_is_that_of_its_median() -> None:
    # Ranks 1 and 8 of ten (from 0) enclose the median with 1 - 2 (1 + 10) / 1024: the normal quantile of half of it.
    values = np.exp(np.arange(10) / 100)
    found = statistics.of_processes([values.tolist()])
    enclosed = 1 - 2 * 11 / 1024
    quantile = 2.2994  # of (1 + enclosed) / 2 = 0.98926
    assert enclosed == pytest.approx(0.97852, abs=1e-5)
    assert found.se == pytest.approx(0.07 / (2 * quantile), rel=1e-3)
    assert found.df == 9
    assert math.log(found.value) == pytest.approx(0.045)


@pytest.mark.parametrize(
    ("evidence", "interval"),
    [
        (statistics.Evidence(10, 2), (10 - 1.96 * 2, 10 + 1.96 * 2)),
        (statistics.Evidence(10, 2, 4), (10 - 2.776 * 2, 10 + 2.776 * 2)),  # Student's t of four degrees
        (statistics.Evidence(2, 0.1, log=True), (2 * math.exp(-0.196), 2 * math.exp(0.196))),
        (statistics.Evidence(3), (3, 3)),
    ],
)
def test_intervals_of_evidence(evidence: statistics.Evidence, interval: tuple[float, float]) -> None:
    assert evidence.interval() == pytest.approx(interval, rel=1e-3)


def test_sides_of_a_limit() -> None:
    found = statistics.Evidence(10, 2)
    assert found.p_above(10) == pytest.approx(0.5)
    assert found.p_above(6.08) == pytest.approx(0.025, abs=1e-3)  # surely above 6
    assert found.p_below(13.92) == pytest.approx(0.025, abs=1e-3)
    ratio = statistics.Evidence(2, 0.1, log=True)
    assert ratio.p_above(2 * math.exp(-0.196)) == pytest.approx(0.025, abs=1e-3)
    assert ratio.p_above(0) == 0
    assert (statistics.Evidence(3).p_above(2), statistics.Evidence(3).p_above(3)) == (0, 1)
    assert (statistics.Evidence(3).p_below(4), statistics.Evidence(3).p_below(3)) == (0, 1)
    assert statistics.Evidence(3, math.inf).p_above(0) == 0.5


def test_differences_and_ratios_add_their_variances() -> None:
    a, b = statistics.Evidence(10, 3, 10), statistics.Evidence(4, 4, 5)
    assert (a.minus(b).value, a.minus(b).se) == (6, 5)
    # Welch and Satterthwaite.
    assert a.minus(b).df == pytest.approx((9 + 16) ** 2 / (81 / 10 + 256 / 5))
    exact = statistics.Evidence(4)
    assert (a.minus(exact).se, a.minus(exact).df) == (3, 10)
    assert a.minus(statistics.Evidence(4, math.inf)).se == math.inf
    over = statistics.Evidence(10, 0.3, log=True).over(statistics.Evidence(4, 0.4, log=True))
    assert (over.value, over.se, over.log) == (2.5, pytest.approx(0.5), True)


def test_a_scaled_figure_keeps_its_relative_noise() -> None:
    assert statistics.Evidence(10, 2).scaled(-3, 1) == statistics.Evidence(-29, 6)
    assert statistics.Evidence(10, 0.2, log=True).scaled(3) == statistics.Evidence(30, 0.2, log=True)
    with pytest.raises(ValueError, match="log scale"):
        statistics.Evidence(10, 0.2, log=True).scaled(1, 2)


def test_evidence_of_replicates_has_their_deviation() -> None:
    found = statistics.from_replicates(5, [1, 3, math.nan])
    assert (found.value, found.df) == (5, math.inf)
    assert found.se == pytest.approx(math.sqrt(2))
    assert statistics.from_replicates(5, [1]).se == math.inf


def test_percentile_intervals_are_central() -> None:
    assert statistics.percentile_interval(np.arange(1001), 0.95) == pytest.approx((25, 975))
    assert statistics.percentile_interval([*np.arange(1001), math.nan], 0.9) == pytest.approx((50, 950))
    assert statistics.percentile_interval([1, math.nan]) is None


def test_resamples_of_a_constant_are_that_constant() -> None:
    found = statistics.bootstrap_mean([3.0] * 7 + [math.nan], "ms")
    assert (found.value, found.low, found.high, found.n) == (3, pytest.approx(3), pytest.approx(3), 7)


def test_holm_steps_down() -> None:
    # Of four at 0.05: thresholds 0.0125, 0.0167, 0.025, 0.05. The third fails, and so does all that comes behind it.
    assert statistics.holm([0.04, 0.0125, 0.03, 0.016], 0.05) == [False, True, False, True]
    assert statistics.holm([0.02, 0.02], 0.05) == [True, True]
    assert statistics.holm([], 0.05) == []
