"""Training under autocast: every family runs, loses nothing of its geometry, and matches and loses in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import small
from torch import Tensor

from detrbench.models.detector import Detector

# One for each encoder, decoder, kind of query and training part; the others are made of the same parts.
FAMILIES = (
    "dac_detr",
    "deformable_detr",
    "deformable_detr_two_stage",
    "dn_deformable_detr",
    "focus_detr",
    "h_detr",
    "lite_dino",
    "ms_detr",
    "sparse_detr",
)


def batch() -> tuple[Tensor, Tensor, list[dict[str, Tensor]]]:
    """Two images, one of them padded and without objects."""
    generator = torch.Generator().manual_seed(0)
    images, masks = torch.randn(2, 3, 64, 96, generator=generator), torch.zeros(2, 64, 96, dtype=torch.bool)
    images[1, :, :, 64:], masks[1, :, 64:] = 0, True
    boxes = torch.rand(3, 4, generator=generator) * 0.3 + 0.3
    nothing = {"labels": torch.zeros(0, dtype=torch.long), "boxes": torch.zeros(0, 4)}
    return images, masks, [{"labels": torch.tensor([0, 1, 4]), "boxes": boxes}, nothing]


def forward(detector: Detector) -> Any:
    """The output for the batch, always under the same noise."""
    images, masks, targets = batch()
    torch.manual_seed(1)
    return detector(images, masks, targets=targets)


def autocast() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_under_autocast_are_nearly_those_without(family: str) -> None:
    detector, targets = small(family, 5).train(), batch()[-1]
    criterion = detector.criterion
    with torch.no_grad():
        expected = criterion(forward(detector), targets)
    with autocast():
        out = forward(detector)
        losses = criterion(out, targets)
    assert out.pred_logits.dtype == torch.bfloat16  # so it is autocast's work that is judged
    assert set(losses) == set(expected)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    total = criterion.total(losses)
    assert total.item() == pytest.approx(criterion.total(expected).item(), rel=0.02)
    # Whoever ends autocast behind the forward gets the same: nothing of the losses is rounded.
    outside = criterion(out, targets)
    assert {name: loss.item() for name, loss in losses.items()} == {name: loss.item() for name, loss in outside.items()}
    total.backward()
    gradients = [parameter.grad for parameter in detector.parameters() if parameter.grad is not None]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert any(float(gradient.abs().max()) > 0 for gradient in gradients)


def test_autocast_does_not_move_the_tokens() -> None:
    """bfloat16 knows no whole numbers between 256 and 258, and this image is 514 pixels wide."""
    detector = small("deformable_detr", 5).train()
    images, masks = torch.zeros(1, 3, 32, 600), torch.zeros(1, 32, 600, dtype=torch.bool)
    masks[:, :, 514:] = True
    exact = detector(images, masks).tokens
    with autocast():
        rounded = detector(images, masks).tokens
    assert rounded.features.dtype == torch.bfloat16
    assert rounded.image_sizes.tolist() == [[514, 32]]
    torch.testing.assert_close(rounded.positions, exact.positions)
    torch.testing.assert_close(rounded.encoder_reference_points(), exact.encoder_reference_points())
