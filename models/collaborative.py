"""DAC-DETR's C-decoder (Hu et al., NeurIPS 2023): in training, the decoder runs once more without self-attention.

Self-attention spreads the queries out, so that one of them answers for an object; cross-attention gathers them around
it. Without the first, several queries can answer for each object, which trains the second. Shapes: L layers, B images,
Q queries, T objects of all images, R queries that answer for an object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from detrbench.models.boxes import cxcywh_to_xyxy, iou
from detrbench.models.contracts import AuxiliaryDecoder, Decoder, Heads
from detrbench.models.criterion import LossTerm, decoder_suffixes, layer_losses
from detrbench.models.denoising import noised_losses
from detrbench.models.dimensions import Dimensions
from detrbench.models.losses import Losses, Supervision
from detrbench.models.matcher import Matched, label_logits, stacked
from detrbench.models.targets import Objects
from detrbench.models.tokens import Decoded, Encoded, Outputs, Prediction, Queries, Tokens

if TYPE_CHECKING:
    from detrbench.models.detector import DetectorOutput

# A query's score for an object: so much of the boxes' IoU, the rest of the class probability.
IOU_SHARE = 0.7
# An image trains at most so many queries, drawn at random (a quarter of 300 in the official code).
MOST_POSITIVES = 75
# The official code divides by three times the objects, however many queries answer for each.
BALANCE = 3


class NoAuxiliaryDecoder(nn.Module, AuxiliaryDecoder):
    """Nothing runs beside the decoder."""

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()

    def forward(
        self,
        decoder: Decoder,
        queries: Queries,
        encoded: Encoded,
        tokens: Tokens,
        heads: Heads,
        outputs: Outputs,
    ) -> None:
        """Nothing."""


class CollaborativeDecoder(nn.Module, AuxiliaryDecoder):
    """The C-decoder: the same layers and heads, with boxes of its own, of which inference keeps nothing.

    Only the first layer has self-attention, since the official C-decoder starts behind that of the O-decoder; so both
    agree on the first layer.

    Args:
        dimensions: unused; every part takes it.
        one_to_many_threshold: least score of a query that answers for an object beside the best one.
        one_to_many_top: most queries that answer for one object.
    """

    def __init__(self, dimensions: Dimensions, one_to_many_threshold: float, one_to_many_top: int) -> None:
        super().__init__()
        self.threshold, self.top = one_to_many_threshold, one_to_many_top

    def forward(
        self,
        decoder: Decoder,
        queries: Queries,
        encoded: Encoded,
        tokens: Tokens,
        heads: Heads,
        outputs: Outputs,
    ) -> Decoded:
        """Decode the queries once more; arguments as for the decoder."""
        return decoder(queries, encoded, tokens, heads, outputs, mixing_layers=1)

    def loss_terms(self) -> list[LossTerm]:
        """Several queries for each object."""
        return [CollaborativeLoss(self.threshold, self.top)]


class CollaborativeLoss(LossTerm):
    """The losses of the C-decoder: one-to-many in every layer, and those of noised queries as in the O-decoder.

    Args:
        threshold: see `assign`.
        top: see `assign`.
    """

    def __init__(self, threshold: float, top: int) -> None:
        super().__init__()
        self.threshold, self.top = threshold, top

    def forward(
        self,
        out: DetectorOutput,
        objects: Objects,
        matched: Matched | None,
        num_boxes: float,
        supervision: Supervision,
    ) -> Losses:
        """Losses with the suffix `_cdecoder`, and `_<i>_cdecoder` for layer i before the last; none in inference."""
        branch = out.auxiliary
        if branch is None:
            return {}
        answers = self.answers(stacked(out.layers), stacked(branch.layers), objects)
        suffixes = decoder_suffixes(len(branch.layers))
        losses = layer_losses(supervision.one_to_many, answers, BALANCE * num_boxes, suffixes)
        losses |= noised_losses(supervision.decoder, branch.noised, out.queries, objects, num_boxes)
        return {f"{name}_cdecoder": loss for name, loss in losses.items()}

    def answers(self, first: Prediction, second: Prediction, objects: Objects) -> Matched:
        """Who answers for what in the C-decoder, in layers of the O-decoder's and the C-decoder's predictions."""
        scores = matching_scores(first.boxes, second.logits, objects)
        return Matched(second, objects, *assign(scores, objects, self.threshold, self.top))


@torch.no_grad()
def matching_scores(boxes: Tensor, logits: Tensor, objects: Objects) -> Tensor:
    """How well each query of an object's image fits the object.

    Args:
        boxes: (L, B, Q, 4); the O-decoder's, as in the official code.
        logits: (L, B, Q, K); the C-decoder's.
        objects: T of them.

    Returns:
        (L, T, Q) in 0..1.
    """
    overlap = iou(cxcywh_to_xyxy(objects.boxes[:, None]), cxcywh_to_xyxy(boxes[:, objects.image]))
    return IOU_SHARE * overlap + (1 - IOU_SHARE) * label_logits(logits, objects).sigmoid()


@torch.no_grad()
def assign(scores: Tensor, objects: Objects, threshold: float, top: int) -> tuple[Tensor, Tensor]:
    """One-to-many assignment, as the official code has it.

    Each query counts for the object it fits best, if its score reaches the threshold or no query fits some object
    better. That count, at most `top`, says how many queries answer for the object: those of its highest scores, be they
    counted or not. So a query may answer for two objects.

    Args:
        scores: (L, T, Q) from `matching_scores`.
        objects: T of them.
        threshold: least score.
        top: most queries an object.

    Returns:
        (L, T, R) queries, best first, and bool, False behind an object's count; R is `top`, or Q where that is less.
    """
    layers, _, queries = scores.shape
    place = slice(None), objects.image, objects.slot
    table = scores.new_full((layers, len(objects.counts), max(objects.most, 1), queries), -1.0)  # (L, B, n, Q)
    table[place] = scores
    best, choice = table.max(2)
    needed = ((table == table.amax(3, keepdim=True)) & (table >= 0)).any(2)
    counted = _at_most((best >= threshold) | needed)
    counts = torch.zeros_like(table, dtype=torch.long).scatter_(2, choice[:, :, None], counted[:, :, None].long())
    ranked = scores.topk(min(top, queries), dim=2).indices
    count = counts.sum(3)[place]
    return ranked, torch.arange(ranked.shape[2], device=scores.device) < count[..., None]


def _at_most(positive: Tensor) -> Tensor:
    """(L, B, Q) bool, with no more than `MOST_POSITIVES` left of an image's queries, drawn at random."""
    if positive.shape[2] <= MOST_POSITIVES:
        return positive
    lot = torch.rand_like(positive, dtype=torch.get_default_dtype()).masked_fill(~positive, -1.0)
    drawn = lot.topk(MOST_POSITIVES, dim=2).indices
    return positive & torch.zeros_like(positive).scatter(2, drawn, True)
