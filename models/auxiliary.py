"""Loss terms that come with a part: proposals, encoder layers, token scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from detrbench.models.criterion import LossTerm, matched_losses
from detrbench.models.dam import decoder_attention_map
from detrbench.models.losses import Losses, Supervision
from detrbench.models.matcher import Target

if TYPE_CHECKING:
    from detrbench.models.detector import DetectorOutput


class ProposalLoss(LossTerm):
    """Trains the proposal head on the tokens it predicted for: all of them, or the selected ones (two-stage).

    Args:
        class_agnostic: every label counts as class 0, so that the first logit becomes objectness.
    """

    def __init__(self, class_agnostic: bool) -> None:
        super().__init__()
        self.class_agnostic = class_agnostic

    def forward(self, out: DetectorOutput, targets: list[Target], num_boxes: float, supervision: Supervision) -> Losses:
        """Losses with the suffix `_enc`."""
        assert out.queries.proposals is not None
        if self.class_agnostic:
            targets = [{**target, "labels": torch.zeros_like(target["labels"])} for target in targets]
        return matched_losses(supervision.encoder, out.queries.proposals, targets, num_boxes, "_enc")


class EncoderAuxiliaryLoss(LossTerm):
    """Trains the kept tokens of each encoder layer to detect (Sparse DETR, section 3.4)."""

    def forward(self, out: DetectorOutput, targets: list[Target], num_boxes: float, supervision: Supervision) -> Losses:
        """Losses with the suffix `_enc_<layer>`."""
        losses: Losses = {}
        for index, prediction in enumerate(out.encoded.auxiliary):
            losses |= matched_losses(supervision.encoder, prediction, targets, num_boxes, f"_enc_{index}")
        return losses


class ObjectnessLoss(LossTerm):
    """Trains the head that ranks tokens before the encoder to detect (Sparse DETR, section 3.3).

    As for the proposals, all tokens are matched, and the weights are those of every other matched loss.
    """

    def forward(self, out: DetectorOutput, targets: list[Target], num_boxes: float, supervision: Supervision) -> Losses:
        """Losses with the suffix `_backbone`."""
        assert out.encoded.objectness is not None
        return matched_losses(supervision.encoder, out.encoded.objectness, targets, num_boxes, "_backbone")


class DamLoss(LossTerm):
    """Trains the token scores to name the tokens that the decoder attends to most (Sparse DETR, section 3.3)."""

    weights: ClassVar[dict[str, float]] = {"loss_mask_prediction": 1.0}

    def forward(self, out: DetectorOutput, targets: list[Target], num_boxes: float, supervision: Supervision) -> Losses:
        """Binary cross entropy over all tokens, padding included."""
        kept = out.encoded.kept_tokens
        assert kept is not None
        assert out.encoded.scores is not None
        attention = decoder_attention_map(
            out.decoded.sampling_locations, out.decoded.attention_weights, out.tokens.sizes
        )
        target = most_attended(attention, out.tokens.padding, [len(tokens) for tokens in kept[0]])
        return {"loss_mask_prediction": F.multilabel_soft_margin_loss(out.encoded.scores, target)}


@torch.no_grad()
def most_attended(attention: Tensor, padding: Tensor, counts: list[int]) -> Tensor:
    """(B, S) attention map -> (B, S) with 1 on each image's `counts` largest values off the padding, 0 elsewhere."""
    ranked = attention.masked_fill(padding, attention.min() - 1).topk(max(counts), dim=1).indices
    target = torch.zeros_like(attention)
    for image, count in enumerate(counts):
        target[image, ranked[image, :count]] = 1
    return target
