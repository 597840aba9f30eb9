"""What must hold of every detector, whatever its weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from detrbench import models
from detrbench.models.detector import Detector

SMALL: dict[str, Any] = {
    "hidden_dim": 32,
    "num_heads": 4,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "ffn_dim": 48,
    "num_queries": 12,
    "num_classes": 5,
    "width": 8,
}
NAMES = [name for name in models.names() if name.endswith("_tiny")]


def with_slow(names: list[str]) -> list[Any]:
    """Parameters of a test that takes long: those with a part that no earlier one has, the others marked as slow."""
    seen: set[tuple[str, str]] = set()
    made = []
    for name in names:
        parts = set(models.resolve(name, {}).parts.items())
        made.append(pytest.param(name, marks=() if parts - seen else pytest.mark.full))
        seen |= parts
    return made


def small(name: str, seed: int = 0, **overrides: Any) -> Detector:
    torch.manual_seed(seed)
    if name.startswith("focus"):
        overrides.setdefault("keep_ratios", [0.5, 0.3])
    if name.startswith("salience"):
        overrides.setdefault("layer_ratios", [1.0, 0.5])
    detector = models.create(name, **SMALL, **overrides).double()
    with torch.no_grad():  # the official start has zeros that would make layers invisible to these tests
        for parameter in detector.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return detector.eval()


def padded_pair() -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Two images of different size; sizes are multiples of the coarsest stride, so that padding falls on cells."""
    torch.manual_seed(1)
    singles = [torch.randn(1, 3, 128, 64).double(), torch.randn(1, 3, 64, 128).double()]
    images, masks = torch.zeros(2, 3, 128, 128).double(), torch.ones(2, 128, 128, dtype=torch.bool)
    for index, single in enumerate(singles):
        height, width = single.shape[-2:]
        images[index, :, :height, :width] = single[0]
        masks[index, :height, :width] = False
    return images, masks, singles


def test_permuted_images_permute_results(detector: Detector) -> None:
    images, masks, _ = padded_pair()
    with torch.no_grad():
        forward, backward = detector(images, masks), detector(images.flip(0), masks.flip(0))
    assert torch.allclose(forward.pred_boxes, backward.pred_boxes.flip(0), atol=1e-10)
    assert torch.allclose(forward.pred_logits, backward.pred_logits.flip(0), atol=1e-10)


def test_final_outputs_equal_those_of_a_training_forward(detector: Detector) -> None:
    images, masks, _ = padded_pair()
    with torch.no_grad():
        final, every = detector(images, masks), detector(images, masks, outputs="all")
    assert len(final.layers) == 1
    assert torch.equal(final.pred_logits, every.pred_logits)
    assert torch.allclose(final.pred_boxes, every.pred_boxes, atol=1e-12)


def test_no_masks_means_no_padding(detector: Detector) -> None:
    images = torch.randn(2, 3, 64, 96).double()
    with torch.no_grad():
        without, with_masks = detector(images), detector(images, torch.zeros(2, 64, 96, dtype=torch.bool))
    assert torch.allclose(without.pred_boxes, with_masks.pred_boxes, atol=1e-12)


def test_empty_targets_train(detector: Detector) -> None:
    images, masks, _ = padded_pair()
    nothing = {"labels": torch.zeros(0, dtype=torch.long), "boxes": torch.zeros(0, 4)}
    losses = detector.criterion(detector.train()(images, masks), [nothing, nothing])
    total = detector.criterion.total(losses)
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(p.grad).all() for p in detector.parameters() if p.grad is not None)
    box_losses = [value for name, value in losses.items() if name.startswith(("loss_bbox", "loss_giou"))]
    assert all(float(value.detach()) == 0 for value in box_losses)


def test_every_parameter_learns(detector: Detector) -> None:
    images, masks, _ = padded_pair()
    targets = [
        {"labels": torch.tensor([1, 3]), "boxes": torch.tensor([[0.5, 0.5, 0.3, 0.4], [0.2, 0.3, 0.2, 0.2]])},
        {"labels": torch.tensor([0]), "boxes": torch.tensor([[0.4, 0.6, 0.5, 0.5]])},
    ]
    losses = detector.criterion(detector.train()(images, masks, targets=targets), targets)
    detector.criterion.total(losses).backward()
    idle = [name for name, p in detector.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    # Two channels behind a ReLU are soon dead: tests/models/test_salience.py looks at such an attention of more.
    assert [name for name in idle if ".channels." not in name] == []


@pytest.mark.full  # counting runs there: tests/measure/test_official_counts.py
@pytest.mark.parametrize("name", NAMES)
def test_meta_device_gives_shapes(name: str) -> None:
    detector = small(name)
    out = detector.to("meta")(torch.randn(1, 3, 128, 192, device="meta", dtype=torch.float64))
    assert out.pred_boxes.shape == (1, 12, 4)


@pytest.mark.parametrize("name", ["deformable_detr_tiny", "deformable_detr_refine_tiny"])
def test_batched_equals_single(name: str) -> None:
    # Two-stage detectors differ by construction: the 3x3 neck convolution and position of the coarsest level see the
    # padding, and near-ties in the ranking may flip. Batch norm must be frozen; the tiny backbone's is, in eval mode.
    detector = small(name, num_levels=3)
    images, masks, singles = padded_pair()
    tokens = detector.neck(detector.backbone(images), masks, (128, 128))
    assert tokens.num_valid == [(128 * 64 // 64) + (64 * 128 // 64) // 4 + (64 * 128 // 64) // 16] * 2
    with torch.no_grad():
        for index, single in enumerate(singles):
            alone = detector.neck(detector.backbone(single), None, tuple(single.shape[-2:]))
            kept = ~tokens.padding[index]
            assert torch.allclose(tokens.positions[index, kept], alone.positions[0], atol=1e-6)
            assert torch.allclose(tokens.cell_centres()[index, kept], alone.cell_centres()[0])


def test_keep_ratio_one_is_the_dense_encoder() -> None:
    sparse = small("sparse_detr_tiny", keep_ratio=1.0)
    dense = small("efficient_detr_tiny")
    shared = {name: tensor for name, tensor in sparse.state_dict().items() if name in dense.state_dict()}
    dense.load_state_dict(shared)
    images, masks, _ = padded_pair()
    with torch.no_grad():
        ours, theirs = sparse(images, masks), dense(images, masks)
    # On padding the dense encoder goes on updating tokens that nobody may look at; the rest must agree.
    valid = ~ours.tokens.padding
    assert torch.allclose(ours.encoded.memory[valid], theirs.encoded.memory[valid], atol=1e-9)
    assert torch.allclose(ours.pred_boxes, theirs.pred_boxes, atol=1e-9)


@pytest.mark.parametrize("keep_ratio", [0.1, 0.3, 0.9])
def test_trace_tells_what_was_kept(keep_ratio: float) -> None:
    detector = small("sparse_detr_tiny", keep_ratio=keep_ratio)
    images, masks, _ = padded_pair()
    with torch.no_grad():
        out = detector(images, masks, trace=True)
    before = out.tokens.features
    for image, kept in enumerate(out.trace.kept_tokens[-1]):
        changed = (out.encoded.memory[image] != before[image]).any(-1).nonzero()[:, 0]
        assert sorted(kept.tolist()) == changed.tolist()
        assert len(kept) == int(out.tokens.num_valid[image] * keep_ratio) + 1
        assert not out.trace.padding[image, kept].any()


def test_dense_trace_keeps_all_valid_tokens() -> None:
    images, masks, _ = padded_pair()
    with torch.no_grad():
        out = small("deformable_detr_tiny")(images, masks, trace=True)
    assert [len(kept) for kept in out.trace.kept_tokens[0]] == out.tokens.num_valid
    assert len(out.trace.sampling_locations) == 2
