"""DINO: official training in float64, and the laws it obeys at a tiny size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training_goldens import (
    Training,
    check_batch_is_single,
    check_noised_steps,
    check_step,
    check_trains,
    random_batch,
    tiny,
)

from detrbench import models
from detrbench.errors import UsageError


@pytest.mark.full
def test_training_is_the_official_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training("dino_r50_4scale", tmp_path)
    check_step(training)
    check_noised_steps(training, monkeypatch)


@pytest.mark.parametrize("name", ["dino_tiny", "dino_5scale_tiny", "dino_3scale_tiny", "dino_2scale_tiny"])
def test_trains_on_any_number_of_scales(name: str) -> None:
    check_trains(tiny(name))


def test_batch_is_single() -> None:
    check_batch_is_single(tiny("dino_tiny"))


def test_denoising_does_not_change_the_ordinary_queries() -> None:
    detector = tiny("dino_tiny").double().eval()
    images, targets = random_batch()
    with torch.no_grad():
        plain = detector(images.double(), outputs="all")
        noised = detector(images.double(), targets=targets, outputs="all")
    assert len(noised.noised) == len(noised.layers)
    assert torch.allclose(plain.pred_boxes, noised.pred_boxes, atol=1e-12)
    assert noised.decoded.sampling_locations[0].shape == plain.decoded.sampling_locations[0].shape


def test_look_forward_twice_changes_gradients_only() -> None:
    def run(twice: bool) -> tuple[Any, float]:
        detector = tiny("dino_tiny", look_forward_twice=twice, shared_heads=False).double().eval()
        images, targets = random_batch()
        out = detector(images.double(), outputs="all")
        detector.criterion.total(detector.criterion(out, targets)).backward()
        return out.pred_boxes, float(detector.heads.box_embed[0].layers[-1].weight.grad.norm())

    (boxes, gradient), (same, other) = run(True), run(False)
    assert torch.equal(boxes, same)
    assert gradient != pytest.approx(other, rel=1e-3)


def test_parts_that_do_not_fit_are_refused_with_a_reason() -> None:
    with pytest.raises(UsageError, match="decoder 'dino' needs query boxes") as refused:
        models.resolve("dino_tiny", {"queries": "learnable", "denoising": "none"})
    assert "queries=anchors" in (refused.value.hint or "")
    with pytest.raises(UsageError, match="decoder 'deformable' needs query positions"):
        models.resolve("dino_tiny", {"decoder": "deformable"})


def test_denoising_goes_with_two_stage_queries_of_another_decoder() -> None:
    check_trains(tiny("efficient_detr_tiny", denoising="cdn"))


def test_runs_on_the_meta_device() -> None:
    with torch.device("meta"):
        detector = tiny("dino_5scale_tiny").eval()
        assert detector(torch.zeros(1, 3, 128, 160)).pred_boxes.shape == (1, 20, 4)
