"""Budgets on AP over several seeds: about the method, with the noise of seeds and images."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from made_results import MadeResults, three_trainings

from detrbench.check import baselines, judge
from detrbench.check.judge import Judgement
from detrbench.statistics import Evidence
from detrbench.suite import expressions
from detrbench.suite.expressions import PlacedBudget


@pytest.fixture
def made(tmp_path: Path) -> MadeResults:
    return three_trainings(tmp_path)


def asked(made: MadeResults, text: str) -> Judgement:
    placed = PlacedBudget("b", expressions.parse(text), "b.yaml", 1, 1)
    cells = {each.id: each for each in made.store.cells("demo", "smoke")}
    known = baselines.load(made.folder / "baselines", "demo", "smoke")
    (found,) = judge.ask([placed], cells, known)
    return found


def status(made: MadeResults, text: str) -> str:
    found = asked(made, text)
    return judge.decide([found], 1)[0].status if judge.is_open(found) else found.status


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("ap(sparse) >= 60", "holds"), ("ap(sparse) >= 74", "unclear"), ("ap(sparse) >= 95", "broken")],
)
def test_a_bound_is_held_against_the_mean_with_its_noise(made: MadeResults, text: str, wanted: str) -> None:
    found = asked(made, text)
    assert found.found.startswith("75.0 points [")
    assert found.evidence is not None
    assert found.evidence.se > 5 / math.sqrt(3)
    assert status(made, text) == wanted


def test_of_one_training_the_figure_is_a_fact(made: MadeResults) -> None:
    for number in (1, 2):
        made.store.folder("demo", "smoke", next(path.name for path in _folders(made, f"sparse_{number}"))).cell.unlink()
    assert (asked(made, "ap(sparse) >= 69.9").status, asked(made, "ap(sparse) >= 70.1").status) == ("holds", "broken")
    found = asked(made, "ap(sparse) >= 1 x ap(deformable)")
    assert "one seed: of this training, not of the method" in found.notes


def _folders(made: MadeResults, name: str) -> list[Path]:
    return list(made.store.root.glob(f"demo/smoke/cells/{name}-????????"))


def test_methods_are_held_against_each_other(made: MadeResults) -> None:
    assert status(made, "ap(sparse) >= 1 x ap(deformable)") == "holds"
    assert status(made, "ap(sparse) >= ap(deformable) + 22") == "unclear"
    assert "3 against 3 seeds" in asked(made, "ap(sparse) >= ap(deformable) + 22").notes


@pytest.mark.parametrize(("state", "wanted"), [("failed", "missing"), ("not_measured", "unmeasured")])
def test_a_training_without_figure_is_a_finding(made: MadeResults, state: str, wanted: str) -> None:
    """The mean of those that did not diverge is not that of the method."""
    made.state("sparse#1", "accuracy", state, "it diverged")
    found = asked(made, "ap(sparse) >= 1")
    assert found.status == wanted
    assert found.found.startswith("sparse#1: accuracy ")


def test_a_baseline_keeps_each_training(made: MadeResults) -> None:
    cells = made.store.cells("demo", "smoke")
    path, _ = baselines.update(made.folder / "baselines", "demo", "smoke", cells, "the first")
    assert sorted(file.name for file in path.with_suffix("").glob("sparse*")) == [
        "sparse#1.npz",
        "sparse#2.npz",
        "sparse.npz",
    ]
    same = asked(made, "ap(sparse) >= baseline")
    assert (same.status, same.evidence) == ("holds", Evidence(0.0, df=2))  # the very same trainings
    for number, skill in enumerate((0.3, 0.35, 0.4)):
        made.ap(f"sparse#{number}" if number else "sparse", 100 * skill, skill)
    made.put("sparse", "dam", {"protocol_version": 1})
    worse = asked(made, "ap(sparse) >= baseline")
    assert worse.evidence is not None
    assert worse.evidence.value == pytest.approx(-40)
    assert "3 against 3 seeds" in worse.notes
    assert status(made, "ap(sparse) >= baseline") == "broken"
