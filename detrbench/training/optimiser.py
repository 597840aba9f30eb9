"""AdamW with the papers' three learning rates, and their schedule."""

from __future__ import annotations

import torch
from torch import nn

from detrbench.training.recipe import Recipe

# Deformable DETR trains what decides where to look more slowly (its main.py, `lr_linear_proj_names`).
SAMPLING = ("sampling_offsets", "reference_points")
BACKBONE = "backbone."


# Types of torch, which all norms here are or inherit from; frozen batch norm has no parameters.
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def build(detector: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """One parameter group a learning rate and weight decay; each group remembers its own rate as `base_lr`."""
    norms = {id(p) for module in detector.modules() if isinstance(module, NORMS) for p in module.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            decay = _decay(name, id(parameter) in norms, recipe)
            groups.setdefault((_learning_rate(name, recipe), decay), []).append(parameter)
    described = [
        {"params": parameters, "base_lr": lr, "lr": lr, "weight_decay": decay}
        for (lr, decay), parameters in groups.items()
        if lr > 0
    ]
    return torch.optim.AdamW(described, fused=recipe.fused_adamw or None)  # None: PyTorch's choice, as ever


def _decay(name: str, of_a_norm: bool, recipe: Recipe) -> float:
    own = recipe.weight_decay_norm if of_a_norm else recipe.weight_decay_bias if name.endswith("bias") else None
    return recipe.weight_decay if own is None else own


def _learning_rate(name: str, recipe: Recipe) -> float:
    if name.startswith(BACKBONE):
        return recipe.lr_backbone
    if any(part in name for part in SAMPLING):
        return recipe.lr * recipe.lr_sampling
    return recipe.lr


def schedule(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The factor on every learning rate.

    Args:
        recipe: says when to warm up and when to drop.
        step: optimiser steps taken since the start.
        steps_per_epoch: what an epoch of the recipe is.
    """
    drops = sum(step >= round(epochs * steps_per_epoch) for epochs in recipe.lr_drops or ())
    return _warmup(recipe, step) * 0.1**drops


def _warmup(recipe: Recipe, step: int) -> float:
    if step >= recipe.warmup_steps:
        return 1.0
    if recipe.warmup_factor is None:
        return (step + 1) / recipe.warmup_steps
    return recipe.warmup_factor + (1 - recipe.warmup_factor) * step / recipe.warmup_steps
