"""DAC-DETR's C-decoder (Hu et al., NeurIPS 2023): in training, the decoder runs once more without self-attention.

Self-attention spreads the queries out, so that one of them answers for an object; cross-attention gathers them around
it. Without the first, several queries can answer for each object, which trains the second. Shapes: B images, Q queries,
n objects of an image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from detrbench.models.boxes import cxcywh_to_xyxy
from detrbench.models.contracts import AuxiliaryDecoder, Decoder, Heads
from detrbench.models.criterion import LossTerm
from detrbench.models.denoising import noised_losses
from detrbench.models.dimensions import Dimensions
from detrbench.models.losses import Losses, Supervision
from detrbench.models.matcher import Matches, Target
from detrbench.models.tokens import Decoded, Encoded, Outputs, Queries, Tokens

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

    def forward(self, out: DetectorOutput, targets: list[Target], num_boxes: float, supervision: Supervision) -> Losses:
        """Losses with the suffix `_cdecoder`, and `_<i>_cdecoder` for layer i before the last; none in inference."""
        branch = out.auxiliary
        if branch is None:
            return {}
        balanced = max(BALANCE * num_boxes, 1.0)
        losses: Losses = {}
        for index, matches in enumerate(assignments(out, targets, self.threshold, self.top)):
            suffix = "" if index == len(out.layers) - 1 else f"_{index}"
            terms = supervision.one_to_many(branch.layers[index], targets, matches, balanced)
            losses |= {name + suffix: loss for name, loss in terms.items()}
        losses |= noised_losses(supervision.decoder, branch.noised, out.queries, targets, num_boxes)
        return {f"{name}_cdecoder": loss for name, loss in losses.items()}


@torch.no_grad()
def matching_scores(boxes: Tensor, logits: Tensor, target: Target) -> Tensor:
    """How well each query fits each object of an image.

    Args:
        boxes: (Q, 4); the O-decoder's, as in the official code.
        logits: (Q, K); the C-decoder's.
        target: `labels` (n,) and `boxes` (n, 4).

    Returns:
        (n, Q) in 0..1.
    """
    overlap = box_iou(cxcywh_to_xyxy(target["boxes"].to(boxes)), cxcywh_to_xyxy(boxes))
    probability = logits.sigmoid()[:, target["labels"]].T
    return IOU_SHARE * overlap + (1 - IOU_SHARE) * probability


@torch.no_grad()
def assign(scores: Tensor, threshold: float, top: int) -> tuple[Tensor, Tensor]:
    """One-to-many assignment of an image, as the official code has it.

    Each query counts for the object it fits best, if its score reaches the threshold or no query fits some object
    better. That count, at most `top`, says how many queries answer for the object: those of its highest scores, be they
    counted or not. So a query may answer for two objects.

    Args:
        scores: (n, Q) from `matching_scores`.
        threshold: least score.
        top: most queries an object.

    Returns:
        Queries and objects, one after the other, best first.
    """
    if not scores.numel():
        nothing = torch.zeros(0, dtype=torch.long, device=scores.device)
        return nothing, nothing
    best, choice = scores.max(0)
    needed = (scores == scores.amax(1, keepdim=True)).any(0)
    positive = ((best >= threshold) | needed).nonzero()[:, 0]
    if len(positive) > MOST_POSITIVES:
        positive = positive[torch.randperm(len(positive), device=scores.device)[:MOST_POSITIVES]]
    counts = choice[positive].bincount(minlength=len(scores)).clamp(max=top)
    ranked = scores.argsort(dim=1, descending=True)
    chosen = torch.arange(scores.shape[1], device=scores.device) < counts[:, None]
    return ranked[chosen], chosen.nonzero()[:, 0]


def assignments(out: DetectorOutput, targets: list[Target], threshold: float, top: int) -> list[Matches]:
    """The assignment of each decoder layer and image."""
    assert out.auxiliary is not None
    return [
        [
            assign(matching_scores(boxes, logits, target), threshold, top)
            for boxes, logits, target in zip(first.boxes, second.logits, targets)
        ]
        for first, second in zip(out.layers, out.auxiliary.layers)
    ]
