"""Sparse DETR with tokens ranked by objectness, or drawn: what ranks them, what trains and costs it, on every base."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from training_goldens import check_batch_is_single, check_trains, random_batch, tiny

from detrbench.measure.counters import count
from detrbench.measure.protocols import get
from detrbench.models.dam import corr, decoder_attention_map, kept_mask

BASES = ("sparse_detr_tiny", "sparse_deformable_detr_tiny", "sparse_dn_deformable_detr_tiny", "sparse_dino_tiny")


def ranked_by_objectness(name: str = "sparse_detr_tiny", **options: Any) -> Any:
    return tiny(name, encoder="sparse_objectness", **options)


def padded_images() -> tuple[torch.Tensor, torch.Tensor]:
    """The second image is a third narrower."""
    images, masks = random_batch()[0], torch.zeros(2, 96, 96, dtype=torch.bool)
    masks[1, :, 64:] = True
    return images.masked_fill(masks[:, None], 0.0), masks


@pytest.mark.parametrize("name", BASES)
def test_trains_on_every_base(name: str) -> None:
    check_trains(ranked_by_objectness(name))


def test_trains_without_encoder_heads_and_with_dual_attention() -> None:
    check_trains(ranked_by_objectness(encoder_auxiliary=False, dual_attention=True))


def test_batch_is_single() -> None:
    check_batch_is_single(ranked_by_objectness())


def test_the_best_classes_before_the_encoder_are_kept() -> None:
    detector = ranked_by_objectness(keep_ratio=0.2).eval()
    images, masks = padded_images()
    with torch.no_grad():
        torch.nn.init.normal_(detector.encoder.score_network.class_embed.weight)
        trace = detector(images, masks, trace=True).trace
        tokens = detector.neck(detector.backbone(images), masks, images.shape[-2:])
        projected = detector.proposal_head.project(tokens.features + tokens.positions, tokens.proposals()[1])
        logits = detector.encoder.score_network.class_embed(projected)
    for image, valid in enumerate(~tokens.padding):
        kept = trace.kept_tokens[0][image]
        assert len(kept) == int(int(valid.sum()) * 0.2) + 1
        assert valid[kept].all()
        best = logits[image].amax(-1)
        left = valid.clone()
        left[kept] = False
        assert best[kept].min() >= best[left].max()
        assert all(torch.equal(layer[image], kept) for layer in trace.kept_tokens)


def test_its_scores_learn_to_detect_and_not_from_the_decoder() -> None:
    detector = ranked_by_objectness().train()
    images, targets = random_batch()
    out = detector(images, targets=targets)
    losses = detector.criterion(out, targets)
    assert {name for name in losses if name.endswith("_backbone")} == {
        "loss_ce_backbone",
        "loss_bbox_backbone",
        "loss_giou_backbone",
    }
    assert detector.criterion.weight("loss_ce_backbone") == detector.criterion.weight("loss_ce")
    assert "loss_mask_prediction" not in losses
    ranking = list(detector.encoder.score_network.parameters())
    others = [loss for name, loss in losses.items() if not name.endswith("_backbone")]
    untouched = torch.autograd.grad(sum(others), ranking, retain_graph=True, allow_unused=True)
    assert all(gradient is None for gradient in untouched)
    detector.criterion.total({name: loss for name, loss in losses.items() if name.endswith("_backbone")}).backward()
    assert detector.encoder.score_network.class_embed.weight.grad.abs().sum() > 0
    assert next(detector.backbone.parameters()).grad.abs().sum() > 0


def test_scores_that_learn_from_the_decoder_weigh_one() -> None:
    assert tiny("sparse_detr_tiny").criterion.weight("loss_mask_prediction") == 1


def test_training_on_an_object_lifts_its_class() -> None:
    detector = ranked_by_objectness().train()
    images, targets = random_batch()
    head = detector.encoder.score_network
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        out = detector(images, targets=targets)
        loss = detector.criterion(out, targets)["loss_ce_backbone"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_inference_pays_for_the_class_head_alone() -> None:
    """One logit more costs as many multiply-adds as there are token features; a box head would show beside that."""

    def encoder_gflops(**options: Any) -> float:
        detector = tiny("sparse_detr_tiny", **options).eval().to("meta")
        tally = count(detector, 128, 128, "final")
        return tally.gflops_by_part(get("complexity").rule, {"encoder": "encoder"})["encoder"]

    features = 32 * (16 * 16 + 8 * 8 + 4 * 4 + 2 * 2)
    five, six = (encoder_gflops(encoder="sparse_objectness", num_classes=classes) for classes in (5, 6))
    assert (six - five) * 1e9 == pytest.approx(features)
    by_attention = encoder_gflops(num_classes=5)
    assert five < by_attention  # its score network is wider than five logits


def test_it_has_a_corr() -> None:
    detector = ranked_by_objectness().eval()
    with torch.no_grad():
        trace = detector(*padded_images(), trace=True).trace
    attention = decoder_attention_map(trace.sampling_locations, trace.attention_weights, trace.spatial_shapes)
    share = corr(attention, kept_mask(trace.kept_tokens[0], attention.shape[1]))
    assert ((share > 0) & (share < 1)).all()


# ------------------------------------------------------------------------------------------- tokens drawn at random


def test_drawn_tokens_train_on_every_base_and_teach_no_score() -> None:
    detector = tiny("sparse_dino_tiny", encoder="sparse_random")
    check_trains(detector)
    assert not list(detector.encoder.score_network.parameters())
    images, targets = random_batch()
    losses = detector.train().criterion(detector(images, targets=targets), targets)
    assert "loss_mask_prediction" not in losses
    assert not [name for name in losses if name.endswith("_backbone")]


def test_tokens_are_drawn_anew_in_training_and_alike_in_inference() -> None:
    detector = tiny("sparse_detr_tiny", encoder="sparse_random", keep_ratio=0.3).train()
    images, targets = random_batch()

    def drawn() -> list[set[int]]:
        out = detector(images, targets=targets, trace=True) if detector.training else detector(images, trace=True)
        return [set(kept.tolist()) for kept in out.trace.kept_tokens[0]]

    first, other = drawn()
    again = drawn()[0]
    assert len({frozenset(kept) for kept in (first, other, again)}) == 3  # images and steps differ
    share = len(first) / (12 * 12 + 6 * 6 + 3 * 3 + 2 * 2)
    assert len(first & other) < 1.6 * share * len(first)  # as many in common as chance gives, about
    detector.eval()
    with torch.no_grad():
        assert drawn() == drawn()
        assert len({frozenset(kept) for kept in drawn()}) == 1


def test_drawn_tokens_are_no_padding() -> None:
    detector = tiny("sparse_detr_tiny", encoder="sparse_random", keep_ratio=0.5).eval()
    images, masks = padded_images()
    with torch.no_grad():
        trace = detector(images, masks, trace=True).trace
        padding = detector.neck(detector.backbone(images), masks, images.shape[-2:]).padding
    for image, kept in enumerate(trace.kept_tokens[0]):
        assert len(kept) == int(int((~padding[image]).sum()) * 0.5) + 1
        assert not padding[image][kept].any()


def test_the_decoder_finds_as_much_of_its_attention_on_drawn_tokens_as_were_drawn() -> None:
    detector = tiny("sparse_detr_tiny", encoder="sparse_random", keep_ratio=0.5).eval()
    with torch.no_grad():
        trace = detector(random_batch()[0], trace=True).trace
    attention = decoder_attention_map(trace.sampling_locations, trace.attention_weights, trace.spatial_shapes)
    share = corr(attention, kept_mask(trace.kept_tokens[0], attention.shape[1]))
    assert ((share > 0.35) & (share < 0.65)).all()
