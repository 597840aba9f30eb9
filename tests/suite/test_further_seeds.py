"""`seeds` of a scale: which cells there are, and what tells them apart."""

from __future__ import annotations

from typing import Any

import pytest

from detrbench import yaml12
from detrbench.errors import SuiteError, UsageError
from detrbench.run.keys import folder_name
from detrbench.suite import loading as suites
from detrbench.suite.sources import SEEDS

SUITE = """\
name: demo
title: A demonstration
variants:
  - {id: sparse, model: sparse_detr_tiny}
  - {id: kept, model: sparse_detr_tiny, options: {keep_ratio: 0.5}, weights_of: sparse}
  - {id: once, model: deformable_detr_tiny, scales: {smoke: {seeds: 1}}}
  - {id: given, model: deformable_detr_tiny, checkpoint: weights.pth}
  - {id: printed, published_only: true}
scales:
  smoke: {data: shapes, num_train: 8, num_val: 4, image_size: 64, epochs: 1, seed: 5, seeds: 3}
"""


def load(text: str = SUITE) -> suites.LoadedSuite:
    return suites.read(yaml12.parse(text, "demo.yaml"))


def cells(text: str = SUITE, **overrides: Any) -> dict[str, suites.Cell]:
    return {cell.id: cell for cell in load(text).cells("smoke", overrides)}


def test_each_seed_of_what_is_trained_is_a_cell_behind_all_first_ones() -> None:
    assert list(cells()) == [
        *("sparse", "kept", "once", "given", "printed"),
        *("sparse#1", "kept#1"),
        *("sparse#2", "kept#2"),
    ]


def test_further_seeds_differ_in_the_seed_alone() -> None:
    found = cells()
    first, second = found["sparse"], found["sparse#1"]
    assert [found[name].settings.recipe.seed for name in ("sparse", "sparse#1", "sparse#2")] == [5, 6, 7]
    assert second.first is first
    assert (second.index, second.options, second.model) == (first.index, first.options, first.model)
    mine, theirs = second.settings.resolved(), first.settings.resolved()
    assert {name for name in mine if mine[name] != theirs[name]} == {"seed"}
    assert second.recipe["seed"] == (6, SEEDS)
    assert second.describe()["seed_of"] == "sparse"
    assert "seed_of" not in first.describe()


def test_anothers_weights_are_those_of_the_same_seed() -> None:
    found = cells()
    assert found["kept#2"].weights_of is found["sparse#2"]
    assert found["kept#2"].first is found["kept"]


def test_the_first_seed_is_the_cell_that_it_was() -> None:
    alone, first = cells(seeds=1)["sparse"], cells()["sparse"]
    assert folder_name(alone) == folder_name(first)
    assert alone.describe() == first.describe()


def test_the_command_may_ask_for_seeds_and_a_row_for_its_own() -> None:
    assert "once#1" in cells(seeds=2)
    assert "sparse#2" not in cells(seeds=2)
    assert len(cells(seeds=1)) == 5


@pytest.mark.parametrize("bad", ["0", "101", "2.0", "'3'"])
def test_a_number_of_seeds_that_cannot_be_is_refused(bad: str) -> None:
    with pytest.raises(SuiteError, match="seeds"):
        load(SUITE.replace("seeds: 3", f"seeds: {bad}"))


def test_the_last_seed_has_to_be_one() -> None:
    with pytest.raises(UsageError, match="seed"):
        load(SUITE.replace("seed: 5", f"seed: {2**63 - 2}")).cells("smoke")
    load(SUITE.replace("seed: 5", f"seed: {2**63 - 3}")).cells("smoke")


def test_an_id_that_a_seed_has_is_taken() -> None:
    with pytest.raises(SuiteError, match="'sparse#1' twice"):
        load(SUITE.replace("id: once", "id: 'sparse#1'")).cells("smoke")
    with pytest.raises(UsageError, match="at most 120 characters"):
        load(SUITE.replace("sparse", "s" * 119).replace(f"{'s' * 119}_detr", "sparse_detr")).cells("smoke")
