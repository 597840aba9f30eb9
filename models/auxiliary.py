"""Loss terms that come with a part: proposals, encoder layers, token scores."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from detrbench.models.criterion import LossTerm, MatchedTerm
from detrbench.models.dam import decoder_attention_map
from detrbench.models.losses import Losses, Supervision
from detrbench.models.matcher import Matched, Unmatched, stacked
from detrbench.models.precision import in_full
from detrbench.models.targets import Objects
from detrbench.models.transfer import upload

if TYPE_CHECKING:
    from detrbench.models.detector import DetectorOutput


class ProposalLoss(MatchedTerm):
    """Trains the proposal head on the tokens it predicted for: all of them, or the selected ones (two-stage).

    Its losses carry the suffix `_enc`.

    Args:
        class_agnostic: every label counts as class 0, so that the first logit becomes objectness.
        by_anchor: what is matched is the box that each token's prediction starts at, not what is predicted (MS-DETR);
            for proposals of all tokens.
    """

    learns_by = "encoder"

    def __init__(self, class_agnostic: bool, by_anchor: bool = False) -> None:
        super().__init__()
        self.class_agnostic, self.by_anchor = class_agnostic, by_anchor

    def unmatched(self, out: DetectorOutput, objects: Objects) -> Unmatched:
        """The proposals."""
        assert out.queries.proposals is not None
        anchors = in_full(out.tokens.proposals()[0].sigmoid())[None] if self.by_anchor else None
        wanted = objects.as_one_class() if self.class_agnostic else objects
        return Unmatched(stacked([out.queries.proposals]), wanted, anchors)

    def suffixes(self, layers: int) -> list[str]:
        """Of the one prediction."""
        return ["_enc"]


class EncoderAuxiliaryLoss(MatchedTerm):
    """Trains the kept tokens of each encoder layer to detect (Sparse DETR, section 3.4); suffix `_enc_<layer>`."""

    learns_by = "encoder"

    def unmatched(self, out: DetectorOutput, objects: Objects) -> Unmatched | None:
        """The tokens of each layer; None where there was only inference."""
        return Unmatched(stacked(out.encoded.auxiliary), objects) if out.encoded.auxiliary else None

    def suffixes(self, layers: int) -> list[str]:
        """Of encoder layers."""
        return [f"_enc_{index}" for index in range(layers)]


class ObjectnessLoss(MatchedTerm):
    """Trains the head that ranks tokens before the encoder to detect (Sparse DETR, section 3.3); suffix `_backbone`.

    As for the proposals, all tokens are matched, and the weights are those of every other matched loss.
    """

    learns_by = "encoder"

    def unmatched(self, out: DetectorOutput, objects: Objects) -> Unmatched:
        """All tokens."""
        assert out.encoded.objectness is not None
        return Unmatched(stacked([out.encoded.objectness]), objects)

    def suffixes(self, layers: int) -> list[str]:
        """Of the one prediction."""
        return ["_backbone"]


class DamLoss(LossTerm):
    """Trains the token scores to name the tokens that the decoder attends to most (Sparse DETR, section 3.3)."""

    weights = MappingProxyType({"loss_mask_prediction": 1.0})

    def forward(
        self,
        out: DetectorOutput,
        objects: Objects,
        matched: Matched | None,
        num_boxes: float,
        supervision: Supervision,
    ) -> Losses:
        """Binary cross entropy over all tokens, padding included."""
        kept = out.encoded.kept_tokens
        assert kept is not None
        assert out.encoded.scores is not None
        attention = decoder_attention_map(
            out.decoded.sampling_locations, out.decoded.attention_weights, out.tokens.sizes
        )
        target = most_attended(attention, out.tokens.padding, [len(tokens) for tokens in kept[0]])
        return {"loss_mask_prediction": F.multilabel_soft_margin_loss(in_full(out.encoded.scores), target)}


@torch.no_grad()
def most_attended(attention: Tensor, padding: Tensor, counts: list[int]) -> Tensor:
    """(B, S) attention map -> (B, S) with 1 on each image's `counts` largest values off the padding, 0 elsewhere."""
    ranked = torch.where(padding, attention.min() - 1, attention).topk(max(counts), dim=1).indices
    chosen = torch.arange(max(counts), device=ranked.device) < upload(torch.tensor(counts), ranked.device)[:, None]
    return torch.zeros_like(attention).scatter(1, ranked, chosen.to(attention.dtype))
