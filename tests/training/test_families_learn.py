"""Every detector learns: a few steps lower its loss, and (`make test-full`) four photographs are learned by heart."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from families import FAMILIES, small
from golden_files import SHARED

from detrbench.data import DataSpec, layouts, open_dataset
from detrbench.data.coco import CocoDataset
from detrbench.data.loading import Batch, batches
from detrbench.data.transforms import Eval
from detrbench.measure import accuracy, protocols, scoring
from detrbench.models.detector import Detector
from detrbench.training import optimiser
from detrbench.training import step as step_of_training
from detrbench.training.recipe import Recipe

SHAPES = DataSpec(kind="shapes", num_train=4, image_size=96, max_objects=3, min_size=24, clutter=0.1)
STEPS = 15
QUICK = ("sparse_detr", "lite_dino")  # an encoder, denoising


def slow(family: str) -> object:
    """A parameter that `make test-full` alone runs."""
    return pytest.param(family, marks=pytest.mark.full)


def losses(family: str, lr: float) -> list[float]:
    """The loss of each of a few steps on the same four generated images."""
    dataset = open_dataset(SHAPES, "train")
    (batch,) = batches(dataset, Eval(96, 96), batch_size=4)
    recipe = Recipe(lr=lr, lr_backbone=lr, clip_norm=1.0)
    detector = small(family, dataset.num_classes).train()
    optim = optimiser.build(detector, recipe)
    return [train_step(detector, optim, batch, recipe, step) for step in range(STEPS)]


def train_step(detector: Detector, optim: torch.optim.Optimizer, batch: Batch, recipe: Recipe, step: int) -> float:
    """The loss of one step; the data are one batch, so an epoch is a step."""
    factor = optimiser.schedule(recipe, step, steps_per_epoch=1)
    part = step_of_training.Part.of([batch])
    losses, _ = step_of_training.train_step(detector, optim, part, recipe.clip_norm, factor, seed=step)
    return losses["total"]


def falls(found: list[float]) -> bool:
    """Whether the loss is clearly lower at the end: by more than noised queries make it waver."""
    return bool(np.mean(found[-3:]) < 0.85 * np.mean(found[:3]))


@pytest.mark.parametrize("family", [family if family in QUICK else slow(family) for family in FAMILIES])
def test_a_few_steps_lower_the_loss(family: str) -> None:
    found = losses(family, lr=1e-3)
    assert np.isfinite(found).all()
    assert falls(found), found


@pytest.mark.parametrize("family", ["deformable_detr", slow("dac_detr")])
def test_without_learning_the_loss_stays(family: str) -> None:
    assert not falls(losses(family, lr=1e-12))


# ------------------------------------------------------------------------------- four photographs, learned by heart

PHOTOGRAPHS = SHARED / "data" / "tiny_coco_free"
SMALLER = Eval(128, 160)
BY_HEART = Recipe(
    epochs=200,
    batch_size=4,
    lr=1e-3,
    lr_backbone=1e-3,
    lr_sampling=1.0,
    clip_norm=1.0,
    lr_drops=[150],
    warmup_steps=20,
)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> CocoDataset:
    """The first four training images by id with one to five objects, none smaller than 15 % of a side, no crowd."""
    if not PHOTOGRAPHS.is_dir():
        pytest.skip(f"no real images in {PHOTOGRAPHS} (set DETRBENCH_SHARED)")
    document = json.loads((PHOTOGRAPHS / "annotations" / "instances_train2017.json").read_text())
    fitting = []
    for image in sorted(document["images"], key=lambda record: record["id"]):
        objects = [record for record in document["annotations"] if record["image_id"] == image["id"]]
        sides = [min(o["bbox"][2] / image["width"], o["bbox"][3] / image["height"]) for o in objects]
        if 1 <= len(objects) <= 5 and min(sides) >= 0.15 and not any(o["iscrowd"] for o in objects):
            fitting.append(image)
    ids = {image["id"] for image in fitting[:4]}
    chosen = [record for record in document["annotations"] if record["image_id"] in ids]
    path = tmp_path_factory.mktemp("photographs") / "four.json"
    path.write_text(json.dumps({**document, "images": fitting[:4], "annotations": chosen}))
    return CocoDataset(layouts.coco.of_files(PHOTOGRAPHS, path, PHOTOGRAPHS / "train2017"))


def average_precision(detector: Detector, dataset: CocoDataset) -> float:
    rule = protocols.get("accuracy")
    found = accuracy.collect(detector, dataset, [rule], transform=SMALLER)[rule.name]
    return scoring.evaluate(found, dataset, rule, replicates=2).record.stats["AP"] or 0.0


@pytest.mark.full
@pytest.mark.parametrize("family", [name for name in FAMILIES if not name.endswith("scale")])
def test_photographs_are_learned_by_heart(family: str, photographs: CocoDataset) -> None:
    (batch,) = batches(photographs, SMALLER, batch_size=4)
    detector = small(family, photographs.num_classes)
    assert average_precision(detector, photographs) < 5
    optim = optimiser.build(detector, BY_HEART)
    for step in range(BY_HEART.epochs):
        train_step(detector.train(), optim, batch, BY_HEART, step)
    ap = average_precision(detector, photographs)
    print(f"{family}: AP {ap:.1f}")
    assert ap > 80
