"""Evidence against closed forms (scipy's tests) and by simulation: do intervals cover, are false alarms rare?"""

from __future__ import annotations

import math

import numpy as np
import pytest

from detrbench import statistics
from detrbench.compare.verdicts import verdict
from detrbench.statistics import Evidence


def test_three_processes_are_students_t_over_their_medians() -> None:
    from scipy import stats  # half a second, which every process that collects the tests would pay for

    rng = np.random.default_rng(0)
    samples = [rng.lognormal(1, 0.1, 31) for _ in range(4)]
    found = statistics.of_processes([list(each) for each in samples])
    logs = [math.log(np.median(each)) for each in samples]
    wanted = stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    assert np.log(found.interval()) == pytest.approx([wanted.low, wanted.high])
    assert found.p_above(2.5) == pytest.approx(stats.ttest_1samp(logs, math.log(2.5), alternative="greater").pvalue)
    assert found.p_below(2.5) == pytest.approx(stats.ttest_1samp(logs, math.log(2.5), alternative="less").pvalue)


def test_difference_of_independents_is_welchs_test() -> None:
    from scipy import stats

    rng = np.random.default_rng(1)
    a, b = rng.normal(5, 1, 6), rng.normal(4, 3, 9)
    found = _mean(a).minus(_mean(b))
    wanted = stats.ttest_ind(a, b, equal_var=False)
    assert found.df == pytest.approx(wanted.df)
    assert found.interval() == pytest.approx(tuple(wanted.confidence_interval(0.95)))
    assert 2 * min(found.p_above(0), found.p_below(0)) == pytest.approx(wanted.pvalue)


def _mean(values: np.ndarray) -> Evidence:
    return Evidence(float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values)), len(values) - 1)


def test_pairing_survives_a_drifting_machine() -> None:
    rng = np.random.default_rng(3)
    drift = rng.choice([1.0, 3.0], (3, 40)) * rng.lognormal(0, 0.01, (3, 40))
    twice = 2 * drift * rng.lognormal(0, 0.01, (3, 40))
    low, high = statistics.paired_ratio(twice.tolist(), drift.tolist()).interval()
    assert 1.9 < low < 2 < high < 2.1
    assert statistics.of_processes(twice.tolist()).over(statistics.of_processes(drift.tolist())).interval()[1] > 2.2


def test_pairs_must_share_their_rounds() -> None:
    with pytest.raises(ValueError, match="not the same rounds"):
        statistics.paired_ratio([[1.0, 2.0]], [[1.0]])


def test_too_few_rounds_say_nothing() -> None:
    found = statistics.of_processes([[1.0, 1.1, 1.2]])
    assert math.isinf(found.se)
    assert found.estimate("ms", 3).low is None
    assert found.p_above(0.1) == found.p_below(9.0) == 0.5


def test_samples_left_out() -> None:
    whole = [1.0, 1.1, 0.9, 1.05, 1.2, 0.95, 1.0]
    assert statistics.of_processes([[*whole, math.nan]]) == statistics.of_processes([whole])
    assert statistics.paired_ratio([[*whole, math.nan]], [[*whole, 1.0]]).value == 1
    assert math.isinf(statistics.paired_ratio([whole, [math.nan] * 7], [whole, whole]).se)


def test_exact_figures() -> None:
    found = Evidence(3.0)
    assert found.interval() == (3, 3)
    assert (found.p_above(2.9), found.p_above(3.0), found.p_below(3.1), found.p_below(3.0)) == (0, 1, 0, 1)
    noisy = Evidence(2.0, 0.5, 3)
    assert found.minus(noisy) == Evidence(1.0, 0.5, 3)
    assert noisy.scaled(2, 1) == Evidence(5.0, 1.0, 3)
    with pytest.raises(ValueError, match="offset"):
        Evidence(2.0, 0.5, 3, log=True).scaled(1, 1)


def test_replicates_leave_nan_out() -> None:
    assert statistics.from_replicates(1.0, [0.0, 2.0, math.nan]).se == pytest.approx(math.sqrt(2))
    assert math.isinf(statistics.from_replicates(1.0, [1.0]).se)


@pytest.mark.parametrize(
    ("p_values", "rejected"),
    [
        ([], []),
        ([0.04], [True]),
        ([0.04, 0.04], [False, False]),
        ([0.04, 0.01], [True, True]),  # after the first, the second is tested at the whole level
        ([0.001, 0.02, 0.03, 0.2], [True, False, False, False]),
    ],
)
def test_holm(p_values: list[float], rejected: list[bool]) -> None:
    assert statistics.holm(p_values, 0.05) == rejected


@pytest.mark.parametrize(
    ("value", "se", "word"),
    [(0.05, 0.01, "same"), (0.5, 0.1, "better"), (-0.5, 0.1, "worse"), (0.1, 0.3, "unclear"), (0.0, 0.0, "same")],
)
def test_verdicts(value: float, se: float, word: str) -> None:
    assert verdict(Evidence(value, se), 0.2, "higher") == word
    opposite = {"better": "worse", "worse": "better"}.get(word, word)
    assert verdict(Evidence(value, se), 0.2, "lower") == opposite


def test_verdict_of_a_ratio() -> None:
    assert verdict(Evidence(1.10, 0.01, 10, log=True), 0.02, "lower", neutral=1) == "worse"
    assert verdict(Evidence(0.90, 0.01, 10, log=True), 0.02, "lower", neutral=1) == "better"
    assert verdict(Evidence(1.00, 0.002, 10, log=True), 0.02, "lower", neutral=1) == "same"
    assert verdict(Evidence(1.00, math.inf, 1, log=True), 0.02, "lower", neutral=1) == "unclear"


# ------------------------------------------------------------------------------------------------ coverage


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Log-scale noise of one timing: a machine that is now and then disturbed for a while."""
    return rng.normal(0, 0.01, shape) + (rng.random(shape) < 0.1) * rng.exponential(0.1, shape)


def _covers(found: Evidence, truth: float) -> bool:
    low, high = found.interval(0.95)
    return low <= truth <= high


def _ratio_coverage(simulations: int, processes: int, rounds: int, between: float) -> float:
    """How often the interval of a paired ratio of truly 1.2 holds it."""
    rng = np.random.default_rng(processes * 1000 + rounds)
    hits = 0
    for _ in range(simulations):
        shared = _noise(rng, (processes, rounds)) * 5
        layout = rng.normal(0, between, (processes, 1))
        first = 1.2 * np.exp(shared + layout + _noise(rng, (processes, rounds)))
        second = np.exp(shared + _noise(rng, (processes, rounds)))
        hits += _covers(statistics.paired_ratio(first.tolist(), second.tolist()), 1.2)
    return hits / simulations


def test_ratio_intervals_cover_quickly() -> None:
    assert 0.92 <= _ratio_coverage(1000, 3, 15, 0.005) <= 0.98


@pytest.mark.full
@pytest.mark.parametrize(
    ("processes", "rounds", "between"),
    [(1, 15, 0), (1, 30, 0), (1, 100, 0), (3, 30, 0.005), (3, 30, 0), (5, 15, 0.02), (10, 10, 0.005)],
)
def test_ratio_intervals_cover(processes: int, rounds: int, between: float) -> None:
    assert 0.93 <= _ratio_coverage(6000, processes, rounds, between) <= 0.97


@pytest.mark.full
@pytest.mark.parametrize("processes", [3, 5])
def test_absolute_times_cover(processes: int) -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(6000):
        # 30.7 is not the median of one process's noise but of what processes centre on.
        centre = np.exp(rng.normal(math.log(30.7), 0.02, (processes, 1)))
        hits += _covers(statistics.of_processes((centre * np.exp(rng.normal(0, 0.03, (processes, 30)))).tolist()), 30.7)
    assert 0.93 <= hits / 6000 <= 0.97


def test_a_whole_check_raises_few_false_alarms() -> None:
    """20 budgets that all just hold, 500 checks: at most 5 % of the checks raise any alarm (here within 2 sd)."""
    rng = np.random.default_rng(6)
    alarms = 0
    for _ in range(500):
        found = [_mean(rng.normal(0, 1, 4)) for _ in range(20)]
        alarms += any(statistics.holm([each.p_above(0) for each in found], 0.05))
    assert 0.01 <= alarms / 500 <= 0.07
