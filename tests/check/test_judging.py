"""What noise allows to say: verdicts, budgets over several looks, and the error that is read off an interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_results import MadeResults, matches, times

from detrbench.check import baselines, checking, judge, outputs
from detrbench.check.judge import Judgement
from detrbench.compare import differences
from detrbench.compare.differences import Reading
from detrbench.compare.quantities import QUANTITIES
from detrbench.compare.verdicts import verdict
from detrbench.errors import UsageError
from detrbench.measure import ap_images
from detrbench.measure.ap_interval import ClassMatches, Matches
from detrbench.run.keys import folder_name
from detrbench.statistics import Evidence
from detrbench.suite import expressions
from detrbench.suite.expressions import PlacedBudget


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeResults:
    monkeypatch.chdir(tmp_path)
    return MadeResults(tmp_path)


# -------------------------------------------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("value", "se", "word"),
    [
        (2.00, 1.0, "better"),  # 0.04 to 3.96
        (1.90, 1.0, "unclear"),  # -0.06 to 3.86; at 90 % it would be 0.26
        (-2.00, 1.0, "worse"),
        (-1.90, 1.0, "unclear"),
        (0.10, 0.04, "same"),  # 0.02 to 0.18: within 0.2, and that comes first
        (0.10, 0.06, "unclear"),  # -0.02 to 0.22; at 90 % it would lie within
        (0.5, 0.1, "better"),
        (0.0, 0.0, "same"),
        (0.2, 0.0, "same"),
        (0.2001, 0.0, "better"),
        (5.0, math.inf, "unclear"),
    ],
)
def test_a_verdict_reads_the_95_percent_interval(value: float, se: float, word: str) -> None:
    opposite = {"better": "worse", "worse": "better"}.get(word, word)
    assert verdict(Evidence(value, se), 0.2, "higher") == word
    assert verdict(Evidence(value, se), 0.2, "lower") == opposite


@pytest.mark.parametrize(
    ("ratio", "se", "word"),
    [
        (1.019, 0.0, "same"),
        (1 / 1.019, 0.0, "same"),
        (1.03, 0.005, "worse"),
        (0.97, 0.005, "better"),
        (1.03, 0.02, "unclear"),
    ],
)
def test_a_ratio_is_held_against_one(ratio: float, se: float, word: str) -> None:
    assert verdict(Evidence(ratio, se, log=True), 0.02, "lower", neutral=1.0) == word


# ---------------------------------------------------------------------------------- several looks at one budget


def asked(text: str, evidence: Evidence, limit: float) -> Judgement:
    placed = PlacedBudget("b", expressions.parse(text), "b.yaml", 1, 1)
    return Judgement("b", "cell", "unclear", "", placed, evidence, limit, again=True)


def status(p: float, looks: int, kept: bool, text: str = "latency <= 30", beside: int = 0) -> str:
    """Of a budget that is broken (or kept) with that p-value, judged beside others of which nothing is known."""
    quantile = {0.04: 1.7507, 0.02: 2.0537, 0.016: 2.1444}[p]
    sign = 1 if (text.count("<=") == 1) is not kept else -1
    unknown = [asked(text, Evidence(30, 1), 30) for _ in range(beside)]
    first, *_ = judge.decide([asked(text, Evidence(30 + sign * quantile, 1), 30), *unknown], looks)
    return first.status


@pytest.mark.parametrize("text", ["latency <= 30", "ap >= 30"])
@pytest.mark.parametrize(("kept", "word"), [(False, "broken"), (True, "holds")])
def test_looks_share_the_false_alarms(text: str, kept: bool, word: str) -> None:
    assert status(0.04, 1, kept, text) == word
    assert status(0.04, 3, kept, text) == "unclear"  # a third of 5 % for each of three looks
    assert status(0.02, 3, kept, text) == "unclear"
    assert status(0.016, 3, kept, text) == word


def test_budgets_share_the_false_alarms_of_a_look() -> None:
    assert status(0.04, 1, kept=False, beside=1) == "unclear"
    assert status(0.02, 1, kept=False, beside=1) == "broken"
    assert status(0.02, 1, kept=False, beside=2) == "unclear"
    assert status(0.04, 1, kept=True, beside=9) == "holds"  # what is kept raises no alarm


def test_a_check_shares_over_all_its_looks_from_the_first_on(
    made: MadeResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    decide = judge.decide

    def spy(open_ones: list[Judgement], looks: int) -> list[Judgement]:
        seen.append(looks)
        return decide(open_ones, looks)

    monkeypatch.setattr(judge, "decide", spy)
    monkeypatch.setattr(checking, "_time_again", lambda *of: None)
    for cell in ("deformable", "sparse"):
        made.latency(cell, times(len(cell), 8.0, noise=0.3))
    (made.folder / "b.yaml").write_text("suite: demo.yaml\nbudgets: {a: latency(sparse) <= 1 x latency(deformable)}\n")
    from detrbench.check import budgets

    found = checking.check(budgets.load("b.yaml"), checking.CheckOptions(retries=2), lambda text: None)
    assert seen == [3, 3, 3]
    assert found.looks == 3


# ------------------------------------------------------------------------------- what is read off a cell's records


def reading(made: MadeResults, name: str) -> Reading:
    (cell,) = made.store.cells("demo", "smoke")
    found = differences.read(cell, QUANTITIES[name])
    assert found is not None
    return found


def interval(value: float, half: float) -> dict[str, Any]:
    return {"value": value, "unit": "", "n": 80, "low": value - half, "high": value + half}


@pytest.mark.parametrize(
    ("name", "measure", "record"),
    [
        ("corr", "dam", lambda value: {"corr": value}),
        ("queries", "queries", lambda value: {"per_object": {"0.6": interval(9, 1), "0.7": value}}),
        ("ap", "accuracy", lambda value: {"ap": value, "ap50": interval(70, 1)}),
        ("ap50", "accuracy", lambda value: {"ap50": value, "ap": interval(70, 1)}),
    ],
)
def test_the_standard_error_of_an_interval(
    made: MadeResults, name: str, measure: str, record: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    made.put("sparse", measure, {"protocol_version": 1, **record(interval(0.8, 0.196))})
    found = reading(made, name)
    assert found.evidence.value == 0.8
    assert found.evidence.se == pytest.approx(0.1, rel=1e-3)
    assert found.evidence.interval() == pytest.approx((0.604, 0.996), rel=1e-3)


def test_an_estimate_without_interval_is_of_unknown_noise(made: MadeResults) -> None:
    made.put(
        "sparse", "dam", {"protocol_version": 1, "corr": {"value": 0.8, "unit": "", "n": 80, "low": None, "high": None}}
    )
    assert reading(made, "corr").evidence.se == math.inf


def test_counts_and_memory_are_plain_figures(made: MadeResults) -> None:
    made.put("sparse", "complexity", {"protocol_version": 1, "gflops": 12.5, "params_millions": 40.0})
    assert reading(made, "gflops").evidence == Evidence(12.5)
    assert reading(made, "params").evidence == Evidence(40.0)


def put_latency(made: MadeResults, cell: str, samples: list[float], processes: int, marked: list[int]) -> None:
    median = {"value": 1.0, "unit": "ms", "n": len(samples)}
    record = {"protocol_version": 2, "median_ms": median, "samples_ms": samples, "processes": processes}
    made.put(cell, "latency", record | {"marked": marked, "session": made.session})


def test_marked_samples_are_left_out_and_rounds_fall_to_their_process(made: MadeResults) -> None:
    put_latency(made, "sparse", [2.0] * 7 + [8.0] * 6 + [999.0], processes=2, marked=[13])
    found = reading(made, "latency")
    assert [len(each) for each in found.rounds] == [7, 7]
    assert math.isnan(found.rounds[1][6])
    assert found.evidence.value == pytest.approx(4)


def differ(made: MadeResults, name: str) -> differences.Difference:
    """Sparse against deformable."""
    cells = {cell.id: cell for cell in made.store.cells("demo", "smoke")}
    new, old = (differences.read(cells[id_], QUANTITIES[name]) for id_ in ("sparse", "deformable"))
    assert new is not None
    assert old is not None
    return differences.difference(new, old)


def test_latencies_of_one_session_are_paired_by_round(made: MadeResults) -> None:
    swings = [1.0, 30.0, 4.0, 9.0, 2.0, 0.5, 7.0] * 2
    put_latency(made, "deformable", swings, 2, [])
    put_latency(made, "sparse", [0.8 * value for value in swings], 2, [])
    found = differ(made, "latency")
    assert found.notes == ()
    assert found.evidence.value == pytest.approx(0.8)
    assert found.evidence.se < 1e-9


def test_latencies_of_two_sessions_are_not_paired(made: MadeResults) -> None:
    swings = [1.0, 30.0, 4.0, 9.0, 2.0, 0.5, 7.0, 2.0, 30.0, 4.0, 9.0, 2.0, 0.5, 7.0]
    put_latency(made, "deformable", swings, 2, [])
    made.session = "another"
    put_latency(made, "sparse", [0.8 * value for value in swings], 2, [])
    found = differ(made, "latency")
    assert found.notes == ("not timed together, so unpaired",)
    # Medians 4 and 4 of the two processes on either side: their noise is what differs between processes, none here.
    assert found.evidence.value == pytest.approx(0.8)
    put_latency(made, "sparse", [0.8 * value for value in swings[:7]], 1, [])
    assert differ(made, "latency").evidence.se == math.inf


def test_ap_is_paired_over_images_and_says_where_it_is_not(made: MadeResults) -> None:
    made.ap("deformable", 40.0, skill=0.6)
    made.ap("sparse", 40.0, skill=0.6)
    found = differ(made, "ap")
    assert (found.evidence.value, found.evidence.se, found.notes) == (0, 0, ())  # the very same matches
    made.ap("sparse", 41.0)
    found = differ(made, "ap")
    assert found.evidence.value == pytest.approx(1)
    assert found.evidence.se == pytest.approx(math.hypot(2, 2) / 1.959964)
    assert "unpaired" in found.notes[0]


def test_protocols_of_two_versions_are_not_compared(made: MadeResults) -> None:
    for cell, version in (("deformable", 1), ("sparse", 2)):
        made.put(cell, "dam", {"protocol_version": version, "corr": interval(0.8, 0.1)})
    found = differ(made, "corr")
    assert not found.comparable
    assert "common version 1 and common version 2" in found.notes[0]


def test_a_relative_figure_of_a_baseline_is_a_ratio(made: MadeResults) -> None:
    for cell, gflops in (("deformable", 4.0), ("sparse", 3.0)):
        made.gflops(cell, gflops)
    assert differ(made, "gflops").evidence.value == 0.75


# ---------------------------------------------------------------------------------------------- exact budgets


def decided(made: MadeResults, text: str, cell: str = "sparse") -> Judgement:
    placed = PlacedBudget("b", expressions.parse(text), "b.yaml", 1, 1)
    cells = {each.id: each for each in made.store.cells("demo", "smoke")}
    known = baselines.load(made.folder / "baselines", "demo", "smoke")
    (found,) = [each for each in judge.ask([placed], cells, known) if each.cell == cell]
    return found


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("gflops <= 3", "holds"),
        ("gflops <= 2.9999", "broken"),
        ("gflops >= 3", "holds"),
        ("gflops >= 3.0001", "broken"),
        ("gflops == 3.000001", "holds"),
        ("gflops == 3.0001", "broken"),
        ("gflops(sparse) <= 0.75 x gflops(deformable)", "holds"),
        ("gflops(sparse) <= 0.74 x gflops(deformable)", "broken"),
        ("gflops(sparse) <= gflops(deformable) - 1", "holds"),
        ("gflops(sparse) <= gflops(deformable) - 1.1", "broken"),
        ("ap >= 40", "holds"),  # an absolute AP on its images is a fact
        ("ap >= 40.1", "broken"),
    ],
)
def test_budgets_without_noise_are_just_compared(made: MadeResults, text: str, status: str) -> None:
    for cell, gflops in (("deformable", 4.0), ("sparse", 3.0)):
        made.gflops(cell, gflops)
        made.ap(cell, 40.0)
    assert decided(made, text).status == status


def test_a_baseline_keeps_the_noise_of_its_figure(made: MadeResults) -> None:
    made.latency("sparse", times(1, 8.0, noise=0.05))
    made.gflops("sparse", 3.0)
    made.put("sparse", "dam", {"protocol_version": 1, "corr": interval(0.8, 0.196)})
    cells = made.store.cells("demo", "smoke")
    baselines.update(made.folder / "baselines", "demo", "smoke", cells, "a start")
    known = baselines.load(made.folder / "baselines", "demo", "smoke")
    for name in ("corr", "latency", "gflops"):
        mine = reading(made, name)
        kept = known.reading("sparse", mine)
        assert isinstance(kept, Reading)
        assert kept.evidence.value == pytest.approx(mine.evidence.value)
        assert kept.evidence.se == pytest.approx(mine.evidence.se)
        assert (kept.evidence.df, kept.evidence.log) == (mine.evidence.df, mine.evidence.log)
        assert (kept.version, kept.processes) == (mine.version, mine.processes)


def test_the_offset_of_a_difference_is_its_limit(made: MadeResults) -> None:
    for cell in ("deformable", "sparse"):
        made.ap(cell, 40.0)
    found = decided(made, "ap(sparse) >= ap(deformable) - 1.5")
    assert (found.limit, found.evidence and found.evidence.value) == (-1.5, 0)


def test_which_direction_is_welcome_and_what_is_a_ratio() -> None:
    assert {name for name, each in QUANTITIES.items() if each.better == "higher"} == {"ap", "ap50", "corr", "queries"}
    relative = {"gflops", "params", "latency", "memory", "training_memory"}
    assert {name for name, each in QUANTITIES.items() if each.relative} == relative
    assert {name for name, each in QUANTITIES.items() if each.exact} == {"gflops", "params"}


def test_images_of_an_older_record_are_not_paired(made: MadeResults) -> None:
    for cell in ("deformable", "sparse"):
        made.ap(cell, 40.0, skill=0.6)
    images = made.store.folder("demo", "smoke", folder_name(made.cells["sparse"])).images
    images.write_bytes(ap_images.pack({"common": matches(0, 0.6)}, list(range(80)), "an older key"))
    assert "unpaired" in differ(made, "ap").notes[0]


def test_ap50_is_paired_at_the_first_threshold(made: MadeResults) -> None:
    """Both find as much at the first threshold; at the second one finds nothing."""
    one = matches(0, 0.6).classes[0]
    for cell, factor in (("deformable", True), ("sparse", False)):
        made.ap(cell, 40.0)
        record = {"protocol_version": 1, "ap": interval(40, 2), "ap50": interval(60, 2)}
        made.put(cell, "accuracy", record)
        hit = np.concatenate([one.hit, one.hit & factor])
        both = Matches(80, [ClassMatches(one.image, hit, np.zeros_like(hit), one.objects)])
        images = made.store.folder("demo", "smoke", folder_name(made.cells[cell])).images
        images.write_bytes(ap_images.pack({"common": both}, list(range(80)), f"{cell} accuracy"))
    assert differ(made, "ap50").evidence.value == 0
    assert differ(made, "ap").evidence.value < -5


def test_a_pattern_is_about_the_cells_that_it_fits_and_a_suites_own_budgets_count_too(made: MadeResults) -> None:
    from detrbench.check import budgets

    text = (made.folder / "demo.yaml").read_text() + "budgets: {own: ap >= 1}\n"
    (made.folder / "demo.yaml").write_text(text)
    (made.folder / "b.yaml").write_text('suite: demo.yaml\nbudgets: {some: "ap(s*) >= 1", all: ap >= 1}\n')
    found = {each.name: each.cells(["deformable", "sparse"]) for each in budgets.load("b.yaml").budgets}
    assert found == {"own": ["deformable", "sparse"], "some": ["sparse"], "all": ["deformable", "sparse"]}


def test_findings_outweigh_what_could_not_be_measured_and_that_what_is_unclear() -> None:
    def checked(*statuses: Any) -> checking.Checked:
        return checking.Checked("s", "smoke", [Judgement("b", "c", status, "") for status in statuses], 1)

    assert checked("holds").exit_code == 0
    assert [checked(word).exit_code for word in ("broken", "missing", "unmeasured", "unclear")] == [1, 1, 4, 6]
    assert (checked("unclear", "unmeasured").exit_code, checked("unclear", "broken").exit_code) == (4, 1)
    several = [checked("unclear"), checked("unmeasured"), checked("holds")]
    assert (outputs.exit_code(several), outputs.exit_code([*several, checked("missing")])) == (4, 1)
    assert outputs.exit_code(several[:1]) == 6


def test_a_baseline_is_of_one_machine(made: MadeResults) -> None:
    made.latency("sparse", times(1, 8.0))
    made.latency("deformable", times(1, 8.0), gpus=["NVIDIA A100"])
    cells = made.store.cells("demo", "smoke")
    with pytest.raises(UsageError, match="several machines: nvidia-a100, nvidia-h200"):
        baselines.update(made.folder / "baselines", "demo", "smoke", cells, "a start")
