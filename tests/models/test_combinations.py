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


def test_what_is_refused() -> None:
    pairs = {(chosen["queries"], chosen["decoder"]) for chosen in FITTING}
    assert ("learnable", "deformable") in pairs
    assert ("learnable", "dino") not in pairs
    assert ("mixed", "deformable") not in pairs
    assert not any(chosen["queries"] == "learnable" and chosen["denoising"] != "none" for chosen in FITTING)


@pytest.mark.parametrize("chosen", FITTING, ids=lambda chosen: "-".join(chosen.values()))
def test_runs_and_takes_a_training_step(chosen: dict[str, str]) -> None:
    options: dict[str, Any] = {**chosen, **SMALL}
    if chosen["encoder"] == "focus":
        options["keep_ratios"] = [0.5, 0.2]
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
