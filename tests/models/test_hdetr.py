"""Deformable-DETR++ and H-DETR: official outputs, the hybrid branch's losses, nothing of it at inference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from golden_files import batch_of, golden, official_detector, relative_gap, targets_of

from detrbench import models
from detrbench.models.detector import Detector
from detrbench.models.matcher import Unmatched, match, stacked
from detrbench.models.targets import Objects

SMALL = {
    "hidden_dim": 32,
    "num_heads": 4,
    "num_encoder_layers": 1,
    "num_decoder_layers": 2,
    "ffn_dim": 48,
    "num_queries": 6,
    "num_classes": 5,
    "width": 8,
}
LOGGED_ONLY = ("class_error", "cardinality_error")


@pytest.mark.full
def test_the_hybrid_branch_is_the_official_one(tmp_path: Path) -> None:
    name = "hdetr_r50_hybrid"
    detector, case = official_detector(name, tmp_path), golden(name)["train_hybrid"]
    images, masks = batch_of(case)
    targets = targets_of(golden(name)["targets_for_losses"], len(images))
    with torch.no_grad():
        out = detector(images, masks, targets=targets, outputs="all")
    further = out.one_to_many[-1]
    assert list(further.logits.shape) == case["one2many"]["pred_logits"]["shape"]
    for ours, recorded in (
        (out.pred_logits, case["pred_logits"]),
        (out.pred_boxes, case["pred_boxes"]),
        (further.logits, case["one2many"]["pred_logits"]),
        (further.boxes, case["one2many"]["pred_boxes"]),
    ):
        assert relative_gap(ours, recorded["first8"]) < 1e-8
        assert float(ours.sum()) == pytest.approx(recorded["sum"], rel=1e-8)
    losses = detector.criterion(out, targets)
    expected = {name: value for name, value in case["losses"].items() if not name.startswith(LOGGED_ONLY)}
    assert {name: float(value) for name, value in losses.items()} == pytest.approx(expected, rel=1e-8)
    assert {name: detector.criterion.weight(name) for name in losses} == case["loss_weights"]
    assert float(detector.criterion.total(losses)) == pytest.approx(case["total_weighted_loss"], rel=1e-8)


def small(**overrides: Any) -> Detector:
    torch.manual_seed(0)
    detector = models.create(
        "h_detr_tiny", **{**SMALL, "one_to_many_queries": 10, "one_to_many_repeats": 3, **overrides}
    )
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return detector.double().eval()


TARGETS = [
    {"labels": torch.tensor([1, 3]), "boxes": torch.tensor([[0.5, 0.5, 0.3, 0.4], [0.2, 0.3, 0.2, 0.2]])},
    {"labels": torch.zeros(0, dtype=torch.long), "boxes": torch.zeros(0, 4)},
]


@pytest.mark.parametrize("queries", ["encoder", "learnable"])
def test_the_groups_do_not_see_each_other(queries: str) -> None:
    detector, images = small(queries=queries), torch.randn(2, 3, 64, 96).double()
    with torch.no_grad():
        alone, both = detector(images), detector(images, targets=TARGETS)
    assert both.one_to_many[-1].boxes.shape == (2, 10, 4)
    assert both.pred_boxes.shape == (2, 6, 4)
    assert torch.allclose(alone.pred_logits, both.pred_logits, atol=1e-12)
    assert torch.allclose(alone.pred_boxes, both.pred_boxes, atol=1e-12)
    assert not alone.one_to_many


def test_each_object_is_matched_several_times() -> None:
    detector, images = small(), torch.randn(2, 3, 64, 96).double()
    out = detector(images, targets=TARGETS, outputs="all")
    losses = detector.criterion(out, TARGETS)
    assert {name for name in losses if "one2many" in name} == {
        f"loss_{kind}{layer}_one2many" for kind in ("ce", "bbox", "giou") for layer in ("", "_0")
    }
    objects = [{name: tensor.repeat(3, *[1] * (tensor.ndim - 1)) for name, tensor in t.items()} for t in TARGETS]
    lone = Unmatched(stacked(out.one_to_many), Objects.of(objects, out.pred_boxes))
    expected = detector.criterion.supervision.decoder(match([lone])[0], 6.0)
    assert losses["loss_giou_one2many"].item() == pytest.approx(expected["loss_giou"][-1].item())


def test_inference_is_that_of_deformable_detr_pp() -> None:
    hybrid = small()
    plain = models.create("deformable_detr_pp_tiny", **SMALL).double().eval()
    state = hybrid.state_dict()
    state["queries.embedding"] = state["queries.embedding"][:6]
    plain.load_state_dict(state)
    images = torch.randn(1, 3, 64, 96).double()
    with torch.no_grad():
        assert torch.equal(hybrid(images).pred_boxes, plain(images).pred_boxes)


def test_few_tokens_leave_the_second_group_small() -> None:
    out = small(num_queries=60, one_to_many_queries=40)(torch.randn(2, 3, 48, 64).double(), targets=TARGETS)
    tokens = out.tokens.features.shape[1]
    assert out.pred_boxes.shape[1] == 60
    assert out.one_to_many[-1].boxes.shape[1] == tokens - 60


def test_looking_twice_changes_gradients_alone() -> None:
    images = torch.randn(2, 3, 64, 96).double()
    gradients = []
    for look in (False, True):
        detector = small(look_forward_twice=look)
        out = detector(images, targets=TARGETS, outputs="all")
        detector.criterion.total(detector.criterion(out, TARGETS)).backward()
        gradients.append((out.pred_boxes, detector.heads.box_embed[0].layers[0].weight.grad))
    assert torch.equal(gradients[0][0], gradients[1][0])
    assert not torch.allclose(gradients[0][1], gradients[1][1])
