"""Learning rates by parameter, the update rule of AdamW and the schedule, each against figures worked out by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from families import small
from torch import nn

from detrbench.training import optimiser
from detrbench.training.recipe import Recipe

RATES = Recipe(lr=1e-3, lr_backbone=3e-4, lr_sampling=0.2)


def rates(detector: nn.Module, recipe: Recipe) -> dict[str, float]:
    """The learning rate of every parameter by name; 0 for one that no group has."""
    groups = optimiser.build(detector, recipe).param_groups
    of = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert all(group["lr"] == group["base_lr"] for group in groups)
    return {name: of.get(id(parameter), 0.0) for name, parameter in detector.named_parameters()}


@pytest.mark.parametrize("family", ["deformable_detr", "dino", "lite_deformable_detr"])
def test_each_kind_of_parameter_has_its_own_rate(family: str) -> None:
    found = rates(small(family, 12), RATES)
    slow = {name for name in found if "sampling_offsets" in name or "reference_points" in name}
    backbone = {name for name in found if name.startswith("backbone.")}
    assert slow
    assert backbone
    assert {round(found[name], 12) for name in slow} == {2e-4}
    assert {found[name] for name in backbone} == {3e-4}
    assert {found[name] for name in found.keys() - slow - backbone} == {1e-3}


def test_learned_reference_points_are_slow_too() -> None:
    found = rates(small("deformable_detr", 12), RATES)
    assert found["queries.reference_points.weight"] == pytest.approx(2e-4)
    assert found["decoder.layers.0.cross_attention.sampling_offsets.bias"] == pytest.approx(2e-4)
    assert found["decoder.layers.0.cross_attention.attention_weights.bias"] == 1e-3


def test_frozen_parameters_are_left_out() -> None:
    detector = small("deformable_detr", 12)
    detector.neck.requires_grad_(False)
    found = rates(detector, RATES)
    assert {rate for name, rate in found.items() if name.startswith("neck.")} == {0.0}


def stepped(recipe: Recipe, gradients: list[float], start: float = 2.0) -> float:
    """Where one parameter ends after a step with each gradient."""
    module = nn.Module()
    module.weight = nn.Parameter(torch.tensor([start], dtype=torch.float64))
    optim = optimiser.build(module, recipe)
    for gradient in gradients:
        module.weight.grad = torch.full_like(module.weight, gradient)
        optim.step()
    return float(module.weight.detach())


def test_the_first_step_is_adams_and_the_decay_is_decoupled() -> None:
    # The first step of Adam is lr x sign(gradient); the decay takes lr x decay x weight, whatever the gradient.
    # Decay inside the gradient (Adam with L2) would give 2 - 0.1 = 1.9.
    recipe = Recipe(lr=0.1, weight_decay=0.5)
    assert stepped(recipe, [3.0]) == pytest.approx(2 - 0.1 * 0.5 * 2 - 0.1, abs=1e-6)
    assert stepped(recipe, [0.0]) == pytest.approx(2 - 0.1 * 0.5 * 2, abs=1e-6)
    assert stepped(dataclasses.replace(recipe, weight_decay=0.0), [3.0]) == pytest.approx(1.9, abs=1e-6)


def test_the_second_step_has_adams_moments() -> None:
    # Means of gradients 1 and 3 with 0.9 and 0.999, corrected for their start at zero.
    first = (0.9 * 0.1 * 1 + 0.1 * 3) / (1 - 0.9**2)
    second = (0.999 * 0.001 * 1 + 0.001 * 9) / (1 - 0.999**2)
    expected = 2 - 0.1 - 0.1 * first / second**0.5
    assert stepped(Recipe(lr=0.1, weight_decay=0.0), [1.0, 3.0]) == pytest.approx(expected, abs=1e-6)


def test_the_default_recipe_is_the_papers() -> None:
    # Defaults of Deformable DETR's main.py: AdamW at 2e-4, backbone 2e-5, sampling a tenth, decay 1e-4, clipping at
    # 0.1, 50 epochs with one drop after 40; batches of 16 are its configuration with two images on each of 8 GPUs.
    recipe = Recipe()
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.lr_backbone) == (50, 16, 2e-4, 2e-5)
    assert (recipe.lr_sampling, recipe.weight_decay, recipe.clip_norm, recipe.lr_drop) == (0.1, 1e-4, 0.1, 40)
    assert (recipe.warmup_steps, recipe.ema) == (0, 0.0)


def test_the_rate_drops_to_a_tenth_once_those_epochs_are_over() -> None:
    recipe = Recipe(lr_drop=2)
    assert [optimiser.schedule(recipe, epoch, 100 * epoch) for epoch in range(4)] == pytest.approx([1, 1, 0.1, 0.1])
    never = Recipe(lr_drop=None)
    assert optimiser.schedule(never, 1000, 10**6) == 1


def test_the_rate_rises_linearly_from_the_first_step() -> None:
    recipe = Recipe(warmup_steps=4, lr_drop=1)
    assert [optimiser.schedule(recipe, 0, step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert optimiser.schedule(recipe, 1, 1) == pytest.approx(0.05)  # a drop within the warm-up counts as well
