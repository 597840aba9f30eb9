"""What is planned of a row that is trained with several seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_official import cache, cells, make, put, states
from test_plan import SUITE, conditions
from test_plan import cells as plain_cells

from detrbench import yaml12
from detrbench.results.store import ResultsStore
from detrbench.run import execute, plan
from detrbench.run.keys import folder_name
from detrbench.run.plan import WorkItem
from detrbench.suite import loading as suites

__all__ = ["cache"]  # a fixture: released weights of a catalogue of three


def items(root: Path, **overrides: Any) -> dict[tuple[str, str], WorkItem]:
    measures = ("complexity", "accuracy", "dam", "queries", "pictures", "memory", "latency")
    found = [cell for cell in plain_cells(**overrides) if cell.model == "sparse_detr_tiny"]
    planned = plan.work_items(found, measures, ResultsStore(root), conditions())
    return {(item.cell.id, item.measure): item for item in planned}


def test_only_what_depends_on_the_training_is_taken_of_each(tmp_path: Path) -> None:
    planned = items(tmp_path, seeds=2)
    taken = {name: [measure for cell, measure in planned if cell == name] for name, _ in planned}
    assert taken["sparse"] == ["complexity", "training", "accuracy", "dam", "queries", "pictures", "memory", "latency"]
    assert taken["sparse#1"] == ["training", "accuracy", "dam", "queries"]


def test_keys_of_the_first_stay_and_those_of_others_are_those_of_their_seed(tmp_path: Path) -> None:
    """So a finished training with seed 0 is kept, and one that was made with `--set seed=1` is taken over."""
    alone, both, other = items(tmp_path), items(tmp_path, seeds=2), items(tmp_path, seed=1)
    assert {place: item.key for place, item in both.items() if "#" not in place[0]} == {
        place: item.key for place, item in alone.items()
    }
    for measure in ("training", "accuracy", "dam", "queries"):
        assert both["sparse#1", measure].key == other["sparse", measure].key != alone["sparse", measure].key


def test_a_finished_first_training_is_not_done_again(tmp_path: Path) -> None:
    first = items(tmp_path)["sparse", "training"]
    first.folder.weights.parent.mkdir(parents=True)
    first.folder.weights.write_bytes(b"weights")
    first.folder.write_envelope("training", first.key, {"training": {}}, {}, 1.0)
    planned = items(tmp_path, seeds=3)
    assert [planned[name, "training"].state for name in ("sparse", "sparse#1", "sparse#2")] == ["done", "todo", "todo"]


def test_released_weights_are_one_training(tmp_path: Path, cache: Path) -> None:
    put(cache, "family/rho0.1")
    planned = make(tmp_path, cells(seeds=2), "accuracy", train=True)
    assert states(planned, "accuracy")["sparse-0.1"] == "todo"
    assert not [place for place in planned if place[0] in ("sparse-0.1#1", "at-0.5#1")]
    assert planned["sparse-0.3#1", "training"].state == "todo"


def test_a_row_with_anothers_weights_is_measured_with_each_of_its_trainings(tmp_path: Path) -> None:
    planned = make(tmp_path, cells(seeds=2), "accuracy", train=True)
    source = {cell.id: cell for cell in cells(seeds=2)}["sparse-0.1#1"]
    assert planned["at-0.5#1", "accuracy"].trained_in.path.name == folder_name(source)
    assert ("at-0.5#1", "training") not in planned
    assert planned["at-0.5#1", "accuracy"].key != planned["at-0.5", "accuracy"].key


@pytest.mark.parametrize(("measure", "has"), [("complexity", False), ("accuracy", True)])
def test_a_training_that_is_not_planned_has_no_folder(tmp_path: Path, measure: str, has: bool) -> None:
    loaded = suites.read(yaml12.parse(SUITE, "demo.yaml"))
    options = execute.RunOptions(results=tmp_path, scale="smoke", overrides={"seeds": 2}, measures=(measure,))
    execute._record_suite(execute.prepare(loaded, options))
    found = {path.name.rpartition("-")[0] for path in tmp_path.glob("demo/smoke/cells/*")}
    assert found == {"later", "plain", "sparse"} | ({"plain_1", "sparse_1"} if has else set())
