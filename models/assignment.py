"""One-to-many assignment, by which DAC-DETR and MS-DETR train: several queries answer for each object.

Both took it from DETA (Ouyang-Zhang et al., 2022, arXiv 2212.06137). Shapes: L layers, B images, Q queries, T objects
of all images, R queries that answer for an object.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detrbench.models.boxes import cxcywh_to_xyxy, iou
from detrbench.models.matcher import label_logits
from detrbench.models.targets import Objects

# A query's score for an object: so much of the boxes' IoU, the rest of the class probability.
IOU_SHARE = 0.7


@torch.no_grad()
def matching_scores(boxes: Tensor, logits: Tensor, objects: Objects) -> Tensor:
    """How well each query of an object's image fits the object.

    Args:
        boxes: (L, B, Q, 4).
        logits: (L, B, Q, K).
        objects: T of them.

    Returns:
        (L, T, Q) in 0..1.
    """
    overlap = iou(cxcywh_to_xyxy(objects.boxes[:, None]), cxcywh_to_xyxy(boxes[:, objects.image]))
    return IOU_SHARE * overlap + (1 - IOU_SHARE) * label_logits(logits, objects).sigmoid()


@torch.no_grad()
def assign(scores: Tensor, objects: Objects, threshold: float, top: int, most: int) -> tuple[Tensor, Tensor]:
    """Who answers for what, as the official codes have it.

    Each query counts for the object it fits best, if its score reaches the threshold or no query fits some object
    better. That count, at most `top`, says how many queries answer for the object: those of its highest scores, be they
    counted or not. So a query may answer for two objects.

    Args:
        scores: (L, T, Q) from `matching_scores`.
        objects: T of them.
        threshold: least score.
        top: most queries an object.
        most: so many queries of an image count at most, drawn at random.

    Returns:
        (L, T, R) queries, best first, and bool, False behind an object's count; R is `top`, or Q where that is less.
    """
    layers, _, queries = scores.shape
    place = slice(None), objects.image, objects.slot
    table = scores.new_full((layers, len(objects.counts), max(objects.most, 1), queries), -1.0)  # (L, B, n, Q)
    table[place] = scores
    best, choice = table.max(2)
    highest, who = table.max(3, keepdim=True)  # of equal queries one is enough
    needed = torch.zeros_like(table, dtype=torch.bool).scatter(3, who, highest >= 0).any(2)
    counted = _at_most((best >= threshold) | needed, most)
    counts = torch.zeros_like(table, dtype=torch.long).scatter_(2, choice[:, :, None], counted[:, :, None].long())
    ranked = scores.topk(min(top, queries), dim=2).indices
    count = counts.sum(3)[place]
    return ranked, torch.arange(ranked.shape[2], device=scores.device) < count[..., None]


def _at_most(positive: Tensor, most: int) -> Tensor:
    """(L, B, Q) bool, with no more than `most` left of an image's queries, drawn at random."""
    if positive.shape[2] <= most:
        return positive
    lot = torch.rand_like(positive, dtype=torch.get_default_dtype()).masked_fill(~positive, -1.0)
    drawn = lot.topk(most, dim=2).indices
    return positive & torch.zeros_like(positive).scatter(2, drawn, True)
