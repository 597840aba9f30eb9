"""What each step is given: which weights, which images, at which size, and which of the two detectors of a cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from detrbench import models, yaml12
from detrbench.data import Dataset, open_dataset
from detrbench.data.samples import class_names
from detrbench.data.spec import DataSpec
from detrbench.data.transforms import Train
from detrbench.errors import UsageError
from detrbench.measure import protocols
from detrbench.measure.inputs import Inputs
from detrbench.models import checkpoints
from detrbench.ranks import ALONE
from detrbench.results.records import TrainingHistory
from detrbench.results.store import ResultsStore
from detrbench.run import plan, steps
from detrbench.run.keys import Conditions
from detrbench.run.plan import WorkItem
from detrbench.suite import loading as suites

SUITE = """\
name: demo
title: A demonstration
variants: [{id: plain, model: deformable_detr_tiny}]
scales:
  paper: {data: coco, model: {num_queries: 33}}
  smoke:
    {data: shapes, num_train: 4, num_val: 2, image_size: 64, epochs: 1, batch_size: 2,
     model: {width: 8, hidden_dim: 32, num_heads: 2, ffn_dim: 32, num_queries: 10, num_encoder_layers: 1,
             num_decoder_layers: 1}}
"""

Item = Callable[..., WorkItem]
HALF = Train(range(240, 401, 16), 666, True, (200, 250, 300), (192, 300))


@pytest.fixture
def item(tmp_path: Path) -> Item:
    def make(measure: str, scale: str = "smoke", **settings: Any) -> WorkItem:
        (cell,) = suites.read(yaml12.parse(SUITE, "demo.yaml")).cells(scale, settings)
        now = Conditions(lambda *of: "data", lambda *of: 4, {}, "cpu", frozenset(models.names()))
        items = plan.work_items([cell], [measure], ResultsStore(tmp_path), now)
        return next(each for each in items if each.measure == measure)

    return make


def first_weight(detector: Any) -> torch.Tensor:
    return next(iter(detector.state_dict().values()))


def opened(spec: DataSpec, split: Any) -> Dataset:
    return open_dataset(spec, split)


def test_random_weights_are_those_of_the_recipes_seed(item: Item) -> None:
    once, again = (first_weight(steps.load(item("memory"), "cpu", opened)) for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(once, first_weight(steps.load(item("memory", seed=1), "cpu", opened)))


def test_what_was_trained_is_what_is_evaluated(item: Item) -> None:
    accuracy = item("accuracy")
    assert accuracy.weights == "trained"
    classes = opened(accuracy.cell.settings.data_spec, "train").num_classes
    trained = models.create("deformable_detr_tiny", **accuracy.cell.options, num_classes=classes)
    with torch.no_grad():
        first_weight(trained).fill_(0.125)
    models.save_checkpoint(trained, accuracy.trained_in.weights)
    found = steps.load(accuracy, "cpu", opened)
    assert torch.equal(first_weight(found), first_weight(trained))
    assert not found.training


def test_training_sees_the_training_images_and_is_evaluated_on_the_others(
    item: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def train(
        detector: Any, dataset: Dataset, transform: Any, recipe: Any, folder: Any, evaluate: Any, *_: Any, **more: Any
    ) -> None:
        assert more["num_workers"] == 0  # generated images are kept by the process that made them
        seen["trained"] = dataset.fingerprint
        evaluate(detector)

    def collect(detector: Any, dataset: Dataset, *_: Any, **more: Any) -> None:
        seen["evaluated"] = dataset.fingerprint
        raise StopIteration  # that is all there is to see

    monkeypatch.setattr(steps.loop, "train", train)
    monkeypatch.setattr(steps.accuracy, "collect", collect)
    training = item("accuracy")
    with pytest.raises(StopIteration):
        steps._training(training, "cpu", opened, lambda *of, **more: None, ALONE)
    spec = training.cell.settings.data_spec
    assert seen == {"trained": opened(spec, "train").fingerprint, "evaluated": opened(spec, "val").fingerprint}
    assert len(set(seen.values())) == 2


def test_photographs_are_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "cores", lambda: 8)
    assert (steps._readers("coco"), steps._readers("shapes")) == (steps.LOADERS, 0)


def test_the_papers_detector_is_counted_and_the_trained_one_at_its_own_size(
    item: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = {}

    def count(model: str, options: Any, rule: Any, anew: bool) -> None:
        options = models.resolve(model, options).options
        counted[rule.name] = options["num_queries"], options["hidden_dim"], sorted(rule.inputs.sizes())

    monkeypatch.setattr(steps.counting, "count", count)
    steps.take(item("complexity"), "cpu", opened, lambda *of: None)
    assert counted["common"] == (33, 256, sorted(Inputs.first_100().sizes()))
    assert counted["evaluated"][2] == [(64, 64)]
    assert counted["evaluated"][:2] != counted["common"][:2]


@pytest.mark.parametrize(
    ("scale", "settings", "expected"),
    [
        ("paper", {}, Train()),
        ("paper", {"shortest": 400, "longest": 666}, HALF),
        ("paper", {"train_scales": [640], "crop": False}, Train((640,), 1333, False, (320, 400, 480), (307, 480))),
        ("smoke", {}, Train((64,), 64, False, (32, 40, 48), (31, 48))),
        ("smoke", {"train_scales": [48, 64], "crop": True}, Train((48, 64), 64, True, (32, 40, 48), (31, 48))),
    ],
)
def test_training_sees_images_at_the_sizes_that_the_scale_says(
    item: Item, monkeypatch: pytest.MonkeyPatch, scale: str, settings: dict[str, Any], expected: Train
) -> None:
    seen: list[Train] = []

    def train(detector: Any, dataset: Dataset, transform: Train, *_: Any, **more: Any) -> TrainingHistory:
        seen.append(transform)
        return TrainingHistory({}, [], 0.0, 0)

    monkeypatch.setattr(steps.loop, "train", train)
    training = item("training", scale, **settings, **({"path": "somewhere"} if scale == "paper" else {}))
    generated = opened(DataSpec("shapes", num_train=1), "train")
    steps.take(training, "cpu", lambda spec, split: generated, lambda *of, **more: None)
    (found,) = seen
    alike = dataclasses.replace(expected, scales=tuple(expected.scales))
    assert dataclasses.replace(found, scales=tuple(found.scales)) == alike


def test_generated_images_are_timed_at_their_own_size_and_coco_at_the_papers(item: Item) -> None:
    rule = protocols.get("latency")
    small = plan.sized(rule, item("latency").cell)
    assert (small.height, small.width, small.processes) == (64, 64, 1)
    assert plan.sized(rule, item("latency", "paper").cell) is rule


@pytest.mark.parametrize("measure", ["latency", "memory"])
def test_photographs_of_another_size_are_timed_at_it_and_as_thoroughly(item: Item, measure: str) -> None:
    rule = protocols.get(measure)
    own = plan.sized(rule, item(measure, "paper", shortest=320, longest=400).cell)
    assert own == dataclasses.replace(rule, height=320, width=400)
    assert "320x400" in own.convention
    assert plan.sized(rule, item(measure, "paper", shortest=320, longest=533).cell).width == 426


def test_a_checkpoint_with_other_classes_is_refused_where_weights_matter(item: Item, tmp_path: Path) -> None:
    """Each logit would stand for another class: an error, not a wrong AP. Timings do not mind."""
    shape = item("memory").cell.options
    models.save_checkpoint(models.create("deformable_detr_tiny", **shape), tmp_path / "w.safetensors")  # 91 logits

    def given(measure: str, **settings: Any) -> WorkItem:
        found = item(measure, **settings)
        cell = dataclasses.replace(found.cell, checkpoint=str(tmp_path / "w.safetensors"))
        return dataclasses.replace(found, cell=cell, weights="checkpoint")

    classes = opened(given("accuracy").cell.settings.data_spec, "val").num_classes
    with pytest.raises(UsageError, match=rf"w\.safetensors: has 91 class logits, the data {classes} labels"):
        steps.load(given("accuracy"), "cpu", opened)
    assert steps.load(given("memory"), "cpu", opened).spec.options["num_classes"] == 91
    fitting = models.create("deformable_detr_tiny", **shape, num_classes=classes)
    models.save_checkpoint(fitting, tmp_path / "w.safetensors")
    found = steps.load(given("accuracy", **{"model.num_classes": classes}), "cpu", opened)
    assert torch.equal(first_weight(found), first_weight(fitting))


def test_too_few_logits_for_the_data_are_refused_before_training(item: Item) -> None:
    with pytest.raises(UsageError, match=r"num_classes=2: the data has \d+ labels"):
        steps.take(item("training", **{"model.num_classes": 2}), "cpu", opened, lambda *_, **__: None)


def test_what_was_trained_knows_what_its_classes_are_called(item: Item) -> None:
    training = item("training", image_size=96)
    steps.take(training, "cpu", opened, lambda *_, **__: None)
    names = class_names(opened(training.cell.settings.data_spec, "train"))
    assert checkpoints.class_names(training.folder.weights) == list(names.values())
