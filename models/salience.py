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

from detrbench.models.criterion import LossTerm
from detrbench.models.foreground import around
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
    centres = pixel_centres(tokens)
    sides, inside, fits = around(centres, tokens, objects, intervals)
    extent = (objects.boxes[:, 2:] * tokens.image_sizes[objects.image])[:, None]  # (T, 1, 2) width, height
    offset = (sides[..., :2] - sides[..., 2:]) / extent  # of the half width and height
    nearness = torch.where(inside, 1 - offset.norm(dim=-1) / 2, 0.0)
    images = objects.image[:, None].expand(-1, len(centres))
    nearest = nearness.new_zeros(len(objects.counts), len(centres)).scatter_reduce(0, images, nearness, "amax")
    counted = torch.zeros_like(nearest).scatter_reduce(0, images, fits.to(nearest), "amax")
    return nearest * counted


def pixel_centres(tokens: Tokens) -> Tensor:
    """(S, 2) x, y of each token's centre in pixels.

    A cell is as large as the padded image over the number of cells, which need not be a power of two.
    """
    like = tokens.image_sizes
    centres = []
    for height, width in tokens.sizes:
        y = (torch.arange(height, device=like.device) + 0.5) * (tokens.padded_size[0] / height)
        x = (torch.arange(width, device=like.device) + 0.5) * (tokens.padded_size[1] / width)
        centres.append(torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], -1).flatten(0, 1))
    return torch.cat(centres).to(like)
