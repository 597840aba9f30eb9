"""Learning rates by parameter, the update rule of AdamW and the schedule, each against figures worked out by hand."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
import torch
from families import small
from torch import nn

from detrbench.errors import UsageError
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


def decays(detector: nn.Module, recipe: Recipe) -> dict[str, float]:
    """The weight decay of every parameter by name."""
    groups = optimiser.build(detector, recipe).param_groups
    of = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    return {name: of[id(parameter)] for name, parameter in detector.named_parameters()}


def test_biases_may_have_a_decay_of_their_own() -> None:
    detector = small("dino", 12)
    found = decays(detector, Recipe(weight_decay=0.05, weight_decay_norm=0.02, weight_decay_bias=0.0))
    without = {name for name, decay in found.items() if decay == 0.0}
    assert {"decoder.layers.0.self_attention.in_proj_bias", "encoder.layers.0.feed_forward.linear1.bias"} <= without
    assert found["encoder.layers.0.feed_forward.norm.bias"] == 0.02
    assert all(name.endswith("bias") for name in without)
    assert found["encoder.layers.0.feed_forward.linear1.weight"] == 0.05


def test_norms_may_have_a_decay_of_their_own() -> None:
    detector = small("dino", 12)
    found = decays(detector, Recipe(weight_decay=0.05, weight_decay_norm=0.0))
    # The neck's norms stand behind its convolutions; in the tiny backbone only norms have parameters of one dimension.
    norms = {name for name in found if "norm" in name or re.match(r"neck\.projections\.\d\.1\.", name)}
    norms |= {name for name, p in detector.named_parameters() if name.startswith("backbone.") and p.ndim == 1}
    assert {name.split(".")[0] for name in norms} >= {"backbone", "neck", "encoder", "decoder"}
    assert {name for name, decay in found.items() if decay == 0.0} == norms
    assert {decay for name, decay in found.items() if name not in norms} == {0.05}
    assert set(decays(detector, Recipe(weight_decay=0.05)).values()) == {0.05}


def test_the_default_recipe_is_the_papers() -> None:
    # Defaults of Deformable DETR's main.py: AdamW at 2e-4, backbone 2e-5, sampling a tenth, decay 1e-4, clipping at
    # 0.1, 50 epochs with one drop after 40; batches of 16 are its configuration with two images on each of 8 GPUs.
    recipe = Recipe()
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.lr_backbone) == (50, 16, 2e-4, 2e-5)
    assert (recipe.lr_sampling, recipe.weight_decay, recipe.clip_norm, recipe.lr_drops) == (0.1, 1e-4, 0.1, [40])
    assert (recipe.warmup_steps, recipe.ema) == (0, 0.0)


def test_the_rate_drops_to_a_tenth_once_those_epochs_are_over() -> None:
    recipe = Recipe(lr_drops=[2])
    assert [optimiser.schedule(recipe, step, 100) for step in (0, 199, 200, 300)] == pytest.approx([1, 1, 0.1, 0.1])
    never = Recipe(lr_drops=None)
    assert optimiser.schedule(never, 10**6, 1000) == 1


def test_the_rate_drops_again_and_within_an_epoch() -> None:
    recipe = Recipe(lr_drops=[2, 3.5])
    factors = [optimiser.schedule(recipe, step, 10) for step in (19, 20, 34, 35, 100)]
    assert factors == pytest.approx([1, 0.1, 0.1, 0.01, 0.01])


def test_the_rate_rises_linearly_from_the_first_step() -> None:
    recipe = Recipe(warmup_steps=4, lr_drops=[1])
    assert [optimiser.schedule(recipe, step, 10) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert optimiser.schedule(recipe, 1, 1) == pytest.approx(0.05)  # a drop within the warm-up counts as well


def test_the_schedule_is_detectron2s() -> None:
    """Its 3x: 270,000 iterations with drops at 210,000 and 250,000, and 1000 to warm up from a thousandth."""
    from fvcore.common import param_scheduler as fvcore

    total, warmup = 270_000, 1000
    drops = fvcore.MultiStepParamScheduler([1, 0.1, 0.01], milestones=[210_000, 250_000, total])
    theirs = fvcore.CompositeParamScheduler(
        [fvcore.LinearParamScheduler(0.001 * drops(0.0), drops(warmup / total)), drops],
        lengths=[warmup / total, 1 - warmup / total],
        interval_scaling=["rescaled", "fixed"],
    )
    recipe = Recipe(
        epochs=36, iterations_per_epoch=7500, lr_drops=[28, 33.3333], warmup_steps=1000, warmup_factor=0.001
    )
    steps = [0, 1, 500, 998, 999, 1000, 1001, 209_999, 210_000, 249_999, 250_000, 269_999]
    ours = [optimiser.schedule(recipe, step, 7500) for step in steps]
    assert ours == pytest.approx([theirs(step / total) for step in steps], rel=1e-9)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr_drops": []}, "lr_drops: expected a list, each a number above 0, or null, got []"),
        ({"lr_drops": [0]}, "lr_drops: expected a list, each a number above 0, or null, got [0]"),
        ({"lr_drops": [30, 20]}, "lr_drops: expected epochs in ascending order, got [30, 20]"),
        ({"lr_drops": [20, 20]}, "lr_drops: expected epochs in ascending order, got [20, 20]"),
        ({"warmup_factor": 0.1}, "warmup_factor: expected none without warmup_steps, got 0.1"),
        (
            {"warmup_steps": 5, "warmup_factor": 1.5},
            "warmup_factor: expected a number at least 0 and at most 1, or null",
        ),
        ({"iterations_per_epoch": 0}, "iterations_per_epoch: expected a whole number, 1 or more, or null, got 0"),
        ({"weight_decay_bias": 2}, "weight_decay_bias: expected a number at least 0 and at most 1, or null, got 2"),
        ({"ema_warmup": 0, "ema": 0.9}, "ema_warmup: expected a whole number, 1 or more, or null, got 0"),
        ({"ema_warmup": 10}, "ema_warmup: expected none without ema, got 10"),
        ({"weight_decay_norm": -1}, "weight_decay_norm: expected a number at least 0 and at most 1, or null, got -1"),
        ({"aspect_ratio_grouping": 1}, "aspect_ratio_grouping: expected true or false, got 1"),
    ],
)
def test_what_nobody_could_train_by_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        Recipe(**values)
