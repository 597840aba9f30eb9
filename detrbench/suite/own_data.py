"""The suite of one cell that `detrbench train` stands for: one model on a user's own images. Imports no torch.

What a user does not say follows from the data and from the papers:

    shortest, longest   the median short side of the training images, at most DETR's 800, and in proportion to it
    batch_size          4: what one GPU holds at 800 pixels
    epochs              so many that there are about 5000 steps, from 12 (the papers' shortest schedule) to 100
    lr_drops            after four fifths of the epochs
    init                ImageNet's weights, unless training begins with a detector's or the backbone is the tiny one
    rates               those of the model's paper; a backbone that begins at random learns as fast as the rest
"""

from __future__ import annotations

import hashlib
import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detrbench import models, renamed, yaml12
from detrbench.data.coco import CocoDataset
from detrbench.data.sizes import LONGEST, SHORTEST
from detrbench.errors import UsageError, unknown_name
from detrbench.files import at_home
from detrbench.suite import loading
from detrbench.suite.cells import LoadedSuite, split_overrides
from detrbench.training.recipe import IMAGENET, RANDOM

SCALE = "own"
BATCH_SIZE = 4
STEPS = 5000
FEWEST_EPOCHS, MOST_EPOCHS = 12, 100

# The shared scale with the learning rates that detectors of these decoders were published with, and of all others.
_RATES, _OTHER_RATES = {"dab": "dino_12", "dino": "dino_12"}, "deformable_50"
_LONGEST_ID = 64
_FINEST_STEP = 32  # sides are multiples of it, as DETR's are


@dataclass(frozen=True)
class OwnData:
    """What the defaults depend on: training images and their median short side in pixels."""

    images: int
    side: int

    @classmethod
    def of(cls, train: CocoDataset) -> OwnData:
        """That of a training set."""
        return cls(len(train), statistics.median_low(train.sizes.min(axis=1).tolist()))


def document(name: str, model: str, data: OwnData, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The suite as YAML would have it.

    Args:
        name: of the suite.
        model: that is trained.
        data: says how large the training set and its images are.
        chosen: scale keys and options of the model that the user set; what depends on them follows.

    Raises:
        UsageError: no such model, or no such setting.
    """
    if model not in models.names():
        raise unknown_name("model", model, models.names(), "detrbench list models")
    settings, options = split_overrides(chosen)
    _ = settings.recipe  # refuses what is out of bounds
    if settings.seeds > 1:
        raise UsageError("seeds: one detector is trained here", hint="a suite compares several: detrbench run SUITE")
    said = settings.model_dump(exclude_unset=True)
    batch_size = said.get("batch_size", BATCH_SIZE)
    epochs = said.get("epochs", _epochs(-(-data.images // batch_size)))
    side = said.get("shortest", min(max(data.side // _FINEST_STEP, 2) * _FINEST_STEP, SHORTEST))
    scale = {
        "data": "coco",
        "shortest": side,
        "longest": round(side * LONGEST / SHORTEST),
        "epochs": epochs,
        "batch_size": batch_size,
        "lr_drops": [max(1, round(0.8 * epochs))],
        "eval_every_epochs": max(1, epochs // 10),
        "checkpoint_every_steps": 200,
        **_beginning(models.resolve(model, options).parts, said),
    }
    return {
        "name": name,
        "title": f"Own data: {name}",
        "variants": [{"id": _cell_id(model, options), "model": model}],
        "scales": {SCALE: scale},
        "measure": ["complexity", "accuracy", "pictures"],
    }


def load(suite: Mapping[str, Any]) -> LoadedSuite:
    """The suite, checked."""
    return loading.read(yaml12.Document(dict(suite), "detrbench train", {}))


def name_of(data: Path) -> str:
    """A suite's name after the folder of its data; raises UsageError where a suite of detrbench has it."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", at_home(data).resolve().name).strip("-._") or "data"
    if renamed.current(name) in loading.names():
        raise UsageError(f"{name} is a suite of detrbench", hint="give another name with --name")
    return name


def _epochs(steps: int) -> int:
    return min(max(round(STEPS / steps), FEWEST_EPOCHS), MOST_EPOCHS)


def _beginning(parts: Mapping[str, str], said: Mapping[str, Any]) -> dict[str, Any]:
    """What training begins with, and how fast it then learns."""
    recipe = loading.shared_scales()[_RATES.get(parts["decoder"], _OTHER_RATES)].recipe
    # There are no weights of ImageNet for the tiny backbone; a detector's weights hold its backbone.
    init = RANDOM if said.get("init_from") or parts["backbone"] == "tiny" else said.get("init", IMAGENET)
    random = init == RANDOM and not said.get("init_from")
    lr = said.get("lr", recipe.lr)
    lr_backbone = lr if random else recipe.lr_backbone
    return {"lr": lr, "lr_backbone": lr_backbone, "lr_sampling": recipe.lr_sampling, "init": init}


def _cell_id(model: str, options: Mapping[str, Any]) -> str:
    """The model with the options that the user set, so that two settings of a model are two rows; short."""
    told = "-".join([model, *(f"{key}={value}" for key, value in options.items())])
    return told if len(told) <= _LONGEST_ID else f"{model}-{hashlib.sha256(told.encode()).hexdigest()[:6]}"
