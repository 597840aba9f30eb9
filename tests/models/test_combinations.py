"""Every encoder with every query selection, decoder and denoising: it runs and trains, or is refused with a reason."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from training_goldens import random_batch, tiny

from detrbench import models
from detrbench.errors import UsageError
from detrbench.models.parts import part_names

KINDS = ("encoder", "queries", "decoder", "denoising")
SMALL = {"num_encoder_layers": 2, "num_decoder_layers": 2}


def _fits(chosen: dict[str, str]) -> bool:
    try:
        models.resolve("dino_tiny", chosen)
    except UsageError as refusal:
        if "needs" not in str(refusal):
            raise
        return False
    return True


COMBINATIONS = [dict(zip(KINDS, names)) for names in itertools.product(*(part_names(kind) for kind in KINDS))]
FITTING = [chosen for chosen in COMBINATIONS if _fits(chosen)]


def _pairs(chosen: dict[str, str]) -> set[Any]:
    return set(itertools.combinations(chosen.items(), 2))


def _few(combinations: list[dict[str, str]]) -> list[dict[str, str]]:
    """Some in which every part meets every other that any of them lets it meet."""
    few: list[dict[str, str]] = []
    left = set().union(*map(_pairs, combinations))
    while left:
        few.append(max(combinations, key=lambda chosen: len(_pairs(chosen) & left)))
        left -= _pairs(few[-1])
    return few


FEW = _few(FITTING)


def test_what_is_refused() -> None:
    pairs = {(chosen["queries"], chosen["decoder"]) for chosen in FITTING}
    assert ("learnable", "deformable") in pairs
    assert ("learnable", "dino") not in pairs
    assert ("mixed", "deformable") not in pairs
    assert not any(chosen["queries"] == "learnable" and chosen["denoising"] != "none" for chosen in FITTING)


@pytest.mark.parametrize(
    "chosen",
    [pytest.param(chosen, marks=() if chosen in FEW else pytest.mark.full) for chosen in FITTING],
    ids=lambda chosen: "-".join(chosen.values()),
)
def test_runs_and_takes_a_training_step(chosen: dict[str, str]) -> None:
    options: dict[str, Any] = {**chosen, **SMALL}
    if chosen["encoder"] == "focus":
        options["keep_ratios"] = [0.5, 0.2]
    if chosen["encoder"] == "salience":
        options["layer_ratios"] = [1.0, 0.4]
    detector = tiny("dino_tiny", **options)
    images, targets = random_batch(size=64)
    with torch.no_grad():
        assert detector.eval()(images).pred_boxes.shape == (2, 20, 4)
    losses = detector.train().criterion(detector(images, targets=targets), targets)
    assert any("_dn" in name for name in losses) == (chosen["denoising"] != "none")
    total = detector.criterion.total(losses)
    total.backward()
    assert math.isfinite(total.item())
    assert all(torch.isfinite(p.grad).all() for p in detector.parameters() if p.grad is not None)


ONE_TO_MANY = [
    {**chosen, "one_to_many": hybrid, "auxiliary_decoder": second}
    for chosen in FITTING
    if chosen["encoder"] == "deformable"
    for hybrid, second in itertools.product(part_names("one_to_many"), part_names("auxiliary_decoder"))
    if (hybrid, second) != ("none", "none")
]


@pytest.mark.full
@pytest.mark.parametrize("chosen", ONE_TO_MANY, ids=lambda chosen: "-".join(chosen.values()))
@pytest.mark.parametrize("class_loss", ["focal", "iou_aware"])
def test_one_to_many_supervision_goes_with_everything(chosen: dict[str, str], class_loss: str) -> None:
    options: dict[str, Any] = {**chosen, **SMALL, "class_loss": class_loss}
    if chosen["one_to_many"] == "hybrid":
        options |= {"one_to_many_queries": 10, "one_to_many_repeats": 2}
    detector = tiny("dino_tiny", **options).train()
    images, targets = random_batch(size=64)
    losses = detector.criterion(detector(images, targets=targets), targets)
    total = detector.criterion.total(losses)
    total.backward()
    assert any("_one2many" in name for name in losses) == (chosen["one_to_many"] == "hybrid")
    assert any("_cdecoder" in name for name in losses) == (chosen["auxiliary_decoder"] == "collaborative")
    assert any("_o2m" in name for name in losses) == (chosen["auxiliary_decoder"] == "mixed")
    assert math.isfinite(total.item())
    assert all(torch.isfinite(p.grad).all() for p in detector.parameters() if p.grad is not None)
    with torch.no_grad():
        out = detector.eval()(images)
    assert out.pred_boxes.shape == (2, 20, 4)
    assert out.auxiliary is None
    assert not out.one_to_many
