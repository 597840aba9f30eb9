"""How a detector is trained: one frozen record, written in a suite beside the data keys of a scale. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from detrbench.errors import UsageError
from detrbench.models.options import Maybe, Real, Values, Whole
from detrbench.words import shown

BOUNDS: Mapping[str, Values] = {
    "epochs": Whole(1),
    "batch_size": Whole(1),
    "micro_batch": Maybe(Whole(1)),
    "lr": Real(above=0, maximum=1),
    "lr_backbone": Real(minimum=0, maximum=1),
    "lr_sampling": Real(minimum=0, maximum=100),
    "weight_decay": Real(minimum=0, maximum=1),
    "clip_norm": Real(minimum=0),
    "lr_drop": Maybe(Whole(1)),
    "warmup_steps": Whole(0),
    "seed": Whole(0, 2**63 - 1),
    "checkpoint_every_steps": Maybe(Whole(1)),
    "eval_every_epochs": Whole(0),
    "ema": Real(minimum=0, below=1),
}

IMAGENET, RANDOM = "imagenet", "none"  # what `init` says beside the names of files


@dataclass(frozen=True)
class Recipe:
    """The papers' settings (AdamW, 50 epochs, batch 16, a single drop of the learning rate) are the defaults.

    epochs: passes over the training images.
    batch_size: images in one optimiser step.
    micro_batch: images that are padded, noised and run together, a divisor of `batch_size`; 2 in the papers, whose
        eight GPUs hold as many each. None runs the whole batch at once.
    lr: learning rate of everything that has no rate of its own.
    lr_backbone: learning rate of the backbone; 0 keeps it as it is.
    lr_sampling: factor on `lr` for the sampling offsets and reference points (0.1 in Deformable DETR's code).
    weight_decay: AdamW's, decoupled.
    clip_norm: largest gradient norm over all parameters; 0 means no clipping.
    lr_drop: after so many epochs the learning rates are divided by 10; None means never.
    warmup_steps: optimiser steps over which the learning rates rise linearly from 0.
    seed: weights, order of images and augmentation.
    checkpoint_every_steps: a killed run loses at most so many steps; None saves at the end of each epoch.
    eval_every_epochs: AP on the validation images is taken so often (and at the end); 0 means never.
    ema: decay of the moving average of the weights; 0 means none.
    init: what the backbone begins with: `imagenet` (the weights that the papers began with), `none` (random values), or
        a file of such weights.
    init_from: a detector's weights to begin with, by name or file, official or ours, in place of `init`; its class
        heads begin at random where the number of classes is another.
    """

    epochs: int = 50
    batch_size: int = 16
    micro_batch: int | None = None
    lr: float = 2e-4
    lr_backbone: float = 2e-5
    lr_sampling: float = 0.1
    weight_decay: float = 1e-4
    clip_norm: float = 0.1
    lr_drop: int | None = 40
    warmup_steps: int = 0
    seed: int = 0
    checkpoint_every_steps: int | None = None
    eval_every_epochs: int = 1
    ema: float = 0.0
    init: str = RANDOM
    init_from: str | None = None

    def __post_init__(self) -> None:
        """Refuse what nobody could train by.

        Raises:
            UsageError: a value that is out of its bounds, or no finite number.
        """
        for name, values in BOUNDS.items():
            found = getattr(self, name)
            if not values.allow(found):
                raise UsageError(f"{name}: expected {values}, got {shown(found)}")
        if self.batch_size % self.images_at_once:
            raise UsageError(
                f"micro_batch: expected a divisor of batch_size, which is {self.batch_size}, got {self.micro_batch}"
            )

    @property
    def images_at_once(self) -> int:
        """Images in one forward."""
        return self.micro_batch or self.batch_size
