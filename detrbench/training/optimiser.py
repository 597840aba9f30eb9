"""AdamW with the papers' three learning rates, and their schedule."""

from __future__ import annotations

import torch
from torch import nn

from detrbench.training.recipe import Recipe

# Deformable DETR trains what decides where to look more slowly (its main.py, `lr_linear_proj_names`).
SAMPLING = ("sampling_offsets", "reference_points")
BACKBONE = "backbone."


def build(detector: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """One parameter group a learning rate; each group remembers its own as `base_lr`."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(_learning_rate(name, recipe), []).append(parameter)
    described = [{"params": parameters, "base_lr": lr, "lr": lr} for lr, parameters in groups.items() if lr > 0]
    return torch.optim.AdamW(described, weight_decay=recipe.weight_decay)


def _learning_rate(name: str, recipe: Recipe) -> float:
    if name.startswith(BACKBONE):
        return recipe.lr_backbone
    if any(part in name for part in SAMPLING):
        return recipe.lr * recipe.lr_sampling
    return recipe.lr


def schedule(recipe: Recipe, epoch: int, step: int) -> float:
    """The factor on every learning rate.

    Args:
        recipe: says when to warm up and when to drop.
        epoch: from 0.
        step: optimiser steps taken since the start.
    """
    warmup = min(1.0, (step + 1) / recipe.warmup_steps) if recipe.warmup_steps else 1.0
    dropped = recipe.lr_drop is not None and epoch >= recipe.lr_drop
    return warmup * (0.1 if dropped else 1.0)
