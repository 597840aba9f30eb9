"""Keys of records: whatever a figure depends on changes its key."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from detrbench import yaml12
from detrbench.environment import hardware
from detrbench.measure import protocols
from detrbench.measures import MEASURES
from detrbench.results.store import ResultsStore
from detrbench.run import plan
from detrbench.run.keys import Conditions, count_keys, folder_name
from detrbench.suite import loading as suites
from detrbench.suite.cells import Cell

SUITE = """\
name: demo
title: A demonstration
variants:
  - {{id: one, model: sparse_detr_tiny, options: {options}}}
scales:
  smoke: {{data: shapes, num_train: 8, num_val: 4, image_size: 64, epochs: 1{settings}}}
"""
MACHINE = {"cpu": "A CPU", "cores": 2, "threads": 2}


def cell(options: str = "{}", settings: str = "") -> Cell:
    text = SUITE.format(options=options, settings=settings)
    (found,) = suites.read(yaml12.parse(text, "demo.yaml")).cells("smoke")
    return found


def key(measure: str, of: Cell, data: str = "data", device: str = "cpu", machine: Any = MACHINE) -> str:
    now = Conditions(
        lambda cell, split: f"{data} {split}", lambda cell, split: 4, machine, device, frozenset({"sparse_detr_tiny"})
    )
    items = plan.work_items([of], [measure], ResultsStore(Path("nowhere")), now)
    return next(item.key for item in items if item.measure == measure)


def newer(monkeypatch: pytest.MonkeyPatch, measure: str) -> None:
    rules = protocols.of(measure)
    monkeypatch.setitem(rules, "common", dataclasses.replace(rules["common"], version=99))  # type: ignore[arg-type]


def test_counts_depend_on_the_detector_and_the_version_of_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    first = count_keys(cell())["common"]
    assert count_keys(cell(settings=", seed: 3"))["common"] == first
    assert count_keys(cell("{keep_ratio: 0.2}"))["common"] != first
    newer(monkeypatch, "complexity")
    assert count_keys(cell())["common"] != first


@pytest.mark.parametrize("measure", ["accuracy", "dam", "latency"])
def test_figures_depend_on_the_detector_its_weights_the_size_and_the_rule(
    monkeypatch: pytest.MonkeyPatch, measure: str
) -> None:
    first = key(measure, cell())
    assert key(measure, cell()) == first
    assert key(measure, cell("{keep_ratio: 0.2}")) != first
    assert key(measure, cell(settings=", shortest: 48")) != first
    if measure != "latency":
        assert key(measure, cell(settings=", lr: 0.5")) != first
        assert key(measure, cell(), data="other") != first
    else:
        assert key(measure, cell(), device="cuda") != first
        assert key(measure, cell(), machine=MACHINE | {"threads": 1}) != first
    newer(monkeypatch, measure)
    assert key(measure, cell()) != first


@pytest.mark.parametrize("settings", [", crop: true", ", train_scales: [48, 64]", ", shortest: 48", ", longest: 80"])
def test_training_depends_on_the_sizes_of_its_images(settings: str) -> None:
    assert key("accuracy", cell(settings=settings)) != key("accuracy", cell())
    assert folder_name(cell(settings=settings)) != folder_name(cell())


@pytest.mark.parametrize("change", [{}, {"shortest": 640}, {"longest": 1000}, {"crop": False}, {"train_scales": [800]}])
def test_training_on_photographs_is_done_again_only_for_other_sizes(change: dict[str, Any]) -> None:
    text = SUITE.format(options="{}", settings="").replace("data: shapes", "data: coco, path: there")
    loaded = suites.read(yaml12.parse(text, "demo.yaml"))
    (usual,) = loaded.cells("smoke", {"shortest": 800, "longest": 1333, "crop": True})
    (changed,) = loaded.cells("smoke", change)
    assert (key("training", changed) != key("training", usual)) == bool(change)


def test_what_training_does_anyway_changes_no_key() -> None:
    said = cell(settings=", crop: false, train_scales: [64]")
    assert key("accuracy", said) == key("accuracy", cell())
    assert folder_name(said) == folder_name(cell())


def test_micro_batches_are_part_of_a_training_unless_they_are_the_whole_batch() -> None:
    assert key("training", cell(settings=", micro_batch: 2")) != key("training", cell())
    for whole in (", micro_batch: null", ", micro_batch: 16"):
        assert key("training", cell(settings=whole)) == key("training", cell())


@pytest.mark.parametrize(
    "asked", ["precision: bf16", "precision: fp16", "fused_adamw: true", "channels_last: true", "compile: true"]
)
def test_what_rounds_otherwise_is_another_training(asked: str) -> None:
    assert key("training", cell(settings=f", {asked}")) != key("training", cell())
    assert folder_name(cell(settings=f", {asked}")) != folder_name(cell())


def test_what_changes_no_bit_is_the_same_training_in_the_same_place() -> None:
    recomputed = cell(settings=", activation_checkpointing: true")
    assert key("training", recomputed) == key("training", cell())
    assert folder_name(recomputed) == folder_name(cell())


def test_the_size_of_a_timing_is_part_of_its_key_though_nothing_is_trained() -> None:
    assert key("latency", cell(settings=", longest: 80")) != key("latency", cell())


def test_timings_are_never_taken_over() -> None:
    timed = [measure for measure in MEASURES.values() if measure.timed]
    assert {measure.name for measure in timed} == {"memory", "latency"}
    assert not any(measure.reusable for measure in timed)


def test_evaluation_depends_on_the_validation_images_and_training_on_the_training_images() -> None:
    def keys(train: str, val: str) -> tuple[str, str]:
        prints = {"train": train, "val": val}
        now = Conditions(
            lambda cell, split: prints[split], lambda *of: 4, MACHINE, "cpu", frozenset({"sparse_detr_tiny"})
        )
        items = {
            item.measure: item.key for item in plan.work_items([cell()], ["accuracy"], ResultsStore("nowhere"), now)
        }
        return items["training"], items["accuracy"]

    first, other_val, other_train = keys("a", "b"), keys("a", "c"), keys("c", "b")
    assert (first[0] == other_val[0], first[1] == other_val[1]) == (True, False)
    assert (first[0] == other_train[0], first[1] == other_train[1]) == (False, False)


def test_a_record_is_done_under_its_own_key_alone_and_not_where_all_is_taken_afresh(tmp_path: Path) -> None:
    now = Conditions(lambda *of: "data", lambda *of: 4, MACHINE, "cpu", frozenset({"sparse_detr_tiny"}))
    store, one = ResultsStore(tmp_path), cell()

    def state(fresh: bool = False) -> str:
        (item,) = plan.work_items([one], ["memory"], store, now, fresh)
        return item.state

    assert state() == "todo"
    folder = store.folder("demo", "smoke", folder_name(one))
    folder.write_envelope("memory", "another key", {"common": {}}, MACHINE, 1.0)
    assert (folder.has("memory", "another key"), folder.has("memory", key("memory", one)), state()) == (
        True,
        False,
        "todo",
    )
    folder.write_envelope("memory", key("memory", one), {"common": {}}, MACHINE, 1.0)
    assert (state(), state(fresh=True)) == ("done", "todo")


def test_a_variants_options_win_over_the_suites() -> None:
    text = SUITE.format(options="{keep_ratio: 0.2}", settings="") + "defaults: {keep_ratio: 0.4, num_queries: 7}\n"
    (found,) = suites.read(yaml12.parse(text, "demo.yaml")).cells("smoke")
    assert found.options == {"keep_ratio": 0.2, "num_queries": 7}


def test_hardware_is_that_of_the_device() -> None:
    both = {"gpus": ["NVIDIA H200", "NVIDIA A100"], "cpu": "Intel(R) Xeon(R) CPU @ 2.5GHz", "cores": 2}
    assert [hardware(both, device) for device in ("cuda", "cuda:1")] == ["nvidia-h200", "nvidia-a100"]
    assert hardware(both, "cpu") == "intel-xeon-2-cores"
