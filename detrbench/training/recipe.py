"""How a detector is trained: one frozen record, written in a suite beside the data keys of a scale. No torch here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """The papers' settings (AdamW, 50 epochs, batch 16, a single drop of the learning rate) are the defaults.

    epochs: passes over the training images.
    batch_size: images in one optimiser step.
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
    """

    epochs: int = 50
    batch_size: int = 16
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
