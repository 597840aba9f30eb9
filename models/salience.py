"""How salient tokens are, by the boxes (Salience-DETR): targets and loss of its token scores.

Shapes: B images, S tokens, T objects of all images.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from detrbench.models.boxes import cxcywh_to_xyxy
from detrbench.models.criterion import LossTerm
from detrbench.models.losses import Losses, Supervision
from detrbench.models.matcher import ALPHA, GAMMA, Matched
from detrbench.models.precision import in_full
from detrbench.models.targets import Objects
from detrbench.models.tokens import Tokens

if TYPE_CHECKING:
    from detrbench.models.detector import DetectorOutput


class SalienceLoss(LossTerm):
    """Focal loss of the raw token scores towards their salience, over the number of salient tokens (at least 1).

    Args:
        intervals: see `salience`.
    """

    weights = MappingProxyType({"loss_salience": 2.0})

    def __init__(self, intervals: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.intervals = intervals

    def forward(
        self,
        out: DetectorOutput,
        objects: Objects,
        matched: Matched | None,
        num_boxes: float,
        supervision: Supervision,
    ) -> Losses:
        """Summed over all images, padding included, which counts as not salient."""
        assert out.encoded.foreground is not None
        scores = in_full(out.encoded.foreground)
        wanted = salience(out.tokens, objects, self.intervals).to(scores)
        return {"loss_salience": soft_focal_loss(scores, wanted).sum() / (wanted > 0).sum().clamp(min=1)}


def soft_focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Sigmoid focal loss (...) of logits (...), whose targets (...) may lie between 0 and 1: both weights are mixed."""
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    weight = ALPHA * (1 - probability) ** GAMMA * targets + (1 - ALPHA) * probability**GAMMA * (1 - targets)
    return weight * entropy


@torch.no_grad()
def salience(tokens: Tokens, objects: Objects, intervals: Sequence[Sequence[float]]) -> Tensor:
    """(B, S) how near each token's centre is to the middle of a box: 1 there, 0.5 in the middle of a side, 0 outside.

    A token counts only where some box around it has its farthest side at a distance of the level's interval; of all
    boxes around it, whatever their size, the nearest middle decides.

    Args:
        tokens: the pyramid.
        objects: T of them, boxes as fractions of the valid image area.
        intervals: for each level (least, most] in pixels, the first exclusive.
    """
    centres, least, most = pixel_centres(tokens, intervals)
    corners = cxcywh_to_xyxy(objects.boxes) * tokens.image_sizes[objects.image].repeat(1, 2)  # (T, 4) pixels
    low, high = corners[:, None].split(2, -1)
    sides = torch.cat([centres - low, high - centres], -1)  # (T, S, 4): left, top, right, bottom
    inside, farthest = sides.amin(-1) > 0, sides.amax(-1)
    fits = inside & (farthest > least) & (farthest <= most)
    offset = (sides[..., :2] - sides[..., 2:]) / (high - low)  # of the half width and height
    nearness = torch.where(inside, 1 - offset.norm(dim=-1) / 2, 0.0)
    images = objects.image[:, None].expand(-1, len(centres))
    nearest = nearness.new_zeros(len(objects.counts), len(centres)).scatter_reduce(0, images, nearness, "amax")
    counted = torch.zeros_like(nearest).scatter_reduce(0, images, fits.to(nearest), "amax")
    return nearest * counted


def pixel_centres(tokens: Tokens, intervals: Sequence[Sequence[float]]) -> tuple[Tensor, Tensor, Tensor]:
    """Each token's centre (S, 2) x, y in pixels, and the bounds (S,) of its level's interval.

    A cell is as large as the padded image over the number of cells, which need not be a power of two.
    """
    like = tokens.image_sizes
    centres, least, most = [], [], []
    for (height, width), interval in zip(tokens.sizes, intervals):
        y = (torch.arange(height, device=like.device) + 0.5) * (tokens.padded_size[0] / height)
        x = (torch.arange(width, device=like.device) + 0.5) * (tokens.padded_size[1] / width)
        centres.append(torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], -1).flatten(0, 1))
        least.append(like.new_full((height * width,), interval[0]))
        most.append(like.new_full((height * width,), interval[1]))
    return torch.cat(centres).to(like), torch.cat(least), torch.cat(most)
