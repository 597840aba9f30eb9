"""How a detector is trained: one frozen record, written in a suite beside the data keys of a scale. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from detrbench.errors import UsageError
from detrbench.models.options import Flag, ListOf, Maybe, OneOf, Real, Values, Whole
from detrbench.words import shown

FLOAT32, BF16, FP16 = "float32", "bf16", "fp16"

BOUNDS: Mapping[str, Values] = {
    "epochs": Whole(1),
    "batch_size": Whole(1),
    "micro_batch": Maybe(Whole(1)),
    "lr": Real(above=0, maximum=1),
    "lr_backbone": Real(minimum=0, maximum=1),
    "lr_sampling": Real(minimum=0, maximum=100),
    "weight_decay": Real(minimum=0, maximum=1),
    "weight_decay_norm": Maybe(Real(minimum=0, maximum=1)),
    "weight_decay_bias": Maybe(Real(minimum=0, maximum=1)),
    "clip_norm": Real(minimum=0),
    "lr_drops": Maybe(ListOf(Real(above=0))),
    "warmup_steps": Whole(0),
    "warmup_factor": Maybe(Real(minimum=0, maximum=1)),
    "iterations_per_epoch": Maybe(Whole(1)),
    "aspect_ratio_grouping": Flag(),
    "seed": Whole(0, 2**63 - 1),
    "checkpoint_every_steps": Maybe(Whole(1)),
    "eval_every_epochs": Whole(0),
    "ema": Real(minimum=0, below=1),
    "ema_warmup": Maybe(Whole(1)),
    "precision": OneOf(FLOAT32, BF16, FP16),
    "fused_adamw": Flag(),
    "channels_last": Flag(),
    "compile": Flag(),
    "activation_checkpointing": Flag(),
}

IMAGENET, RANDOM = "imagenet", "none"  # what `init` says beside the names of files


@dataclass(frozen=True)
class Recipe:
    """The papers' settings (AdamW, 50 epochs, batch 16, one drop of the learning rate) are the defaults.

    epochs: passes over the training images, or stretches of `iterations_per_epoch`.
    batch_size: images in one optimiser step.
    micro_batch: images that are padded, noised and run together, a divisor of `batch_size`; 2 in the papers, whose
        eight GPUs hold as many each. None runs the whole batch at once.
    lr: learning rate of everything that has no rate of its own.
    lr_backbone: learning rate of the backbone; 0 keeps it as it is.
    lr_sampling: factor on `lr` for the sampling offsets and reference points (0.1 in Deformable DETR's code).
    weight_decay: AdamW's, decoupled.
    weight_decay_norm: the same for the weights of norms (layer, group, batch); None means as the rest.
    weight_decay_bias: the same for the biases of all other layers.
    clip_norm: largest gradient norm over all parameters; 0 means no clipping.
    lr_drops: after each of so many epochs, ascending, the learning rates are divided by 10; fractions count, to the
        nearest step; None means never.
    warmup_steps: optimiser steps over which the learning rates rise linearly to their full value.
    warmup_factor: share of the rates at the first step of the warm-up, which reaches 1 at step `warmup_steps`
        (detectron2's schedule); None means that the n-th step has n / `warmup_steps`.
    iterations_per_epoch: optimiser steps that count as an epoch, whatever the number of images: passes follow each
        other without end (detectron2's `max_iter` over the epochs it stands for: 90000 / 12). None means one pass.
    aspect_ratio_grouping: images in a batch are all wider than high, or none is, which saves padding (detectron2).
    seed: weights, order of images and augmentation.
    checkpoint_every_steps: a killed run loses at most so many steps; None saves at the end of each epoch.
    eval_every_epochs: AP on the validation images is taken so often (and at the end); 0 means never.
    ema: decay of the moving average of the weights; 0 means none.
    ema_warmup: optimiser steps N over which that decay rises, to `ema` times 1 - exp(-n / N) at step n (RT-DETR); None
        means that it is (1 + n) / (10 + n), until it would be more than `ema`.
    init: what the backbone begins with: `imagenet` (the weights that the papers began with), `none` (random values), or
        a file of such weights.
    init_from: a detector's weights to begin with, by name or file, official or ours, in place of `init`; its class
        heads begin at random where the number of classes is another.
    precision: what the detector's forward computes in, in training: `float32`, or mixed with `bf16` or `fp16`
        (autocast; the loss is scaled for `fp16`). Weights, matching, losses and all measures stay in float32.
    fused_adamw: the optimiser's step in one kernel. Another order of rounding, no other meaning; so with the next two.
    channels_last: convolutions keep channels innermost, which tensor cores ask for.
    compile: backbone and layers of encoder and decoder go through `torch.compile` first, which takes minutes.
    activation_checkpointing: encoder layers keep what goes in and compute the rest again for the gradient: less memory,
        more time, the same weights bit by bit.
    """

    epochs: int = 50
    batch_size: int = 16
    micro_batch: int | None = None
    lr: float = 2e-4
    lr_backbone: float = 2e-5
    lr_sampling: float = 0.1
    weight_decay: float = 1e-4
    weight_decay_norm: float | None = None
    weight_decay_bias: float | None = None
    clip_norm: float = 0.1
    lr_drops: list[float] | None = field(default_factory=lambda: [40.0])
    warmup_steps: int = 0
    warmup_factor: float | None = None
    iterations_per_epoch: int | None = None
    aspect_ratio_grouping: bool = False
    seed: int = 0
    checkpoint_every_steps: int | None = None
    eval_every_epochs: int = 1
    ema: float = 0.0
    ema_warmup: int | None = None
    init: str = RANDOM
    init_from: str | None = None
    precision: str = FLOAT32
    fused_adamw: bool = False
    channels_last: bool = False
    compile: bool = False
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        """Refuse what nobody could train by.

        Raises:
            UsageError: a value that is out of its bounds, no finite number, or does not fit the others.
        """
        for name, values in BOUNDS.items():
            found = getattr(self, name)
            if not values.allow(found):
                raise UsageError(f"{name}: expected {values}, got {shown(found)}")
        if self.batch_size % self.images_at_once:
            raise UsageError(
                f"micro_batch: expected a divisor of batch_size, which is {self.batch_size}, got {self.micro_batch}"
            )
        drops = self.lr_drops or []
        if any(later <= earlier for earlier, later in pairwise(drops)):
            raise UsageError(f"lr_drops: expected epochs in ascending order, got {shown(drops)}")
        if self.warmup_factor is not None and not self.warmup_steps:
            raise UsageError(f"warmup_factor: expected none without warmup_steps, got {shown(self.warmup_factor)}")
        if self.ema_warmup is not None and not self.ema:
            raise UsageError(f"ema_warmup: expected none without ema, got {shown(self.ema_warmup)}")

    @property
    def images_at_once(self) -> int:
        """Images in one forward."""
        return self.micro_batch or self.batch_size

    def check_shared(self, processes: int) -> None:
        """Raises UsageError where processes could not take equal shares of a step."""
        count = self.batch_size // self.images_at_once
        if count % processes:
            fits = self.batch_size % processes == 0
            raise UsageError(
                f"{processes} processes cannot share {count} x {self.images_at_once} images equally",
                f"--set micro_batch={self.batch_size // processes}"
                if fits
                else "give a number that divides batch_size",
            )
