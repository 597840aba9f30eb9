"""Which tokens are foreground, by the boxes (Focus-DETR, section 3.2): labels and loss of its token scores."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from detrbench.models.boxes import cxcywh_to_xyxy
from detrbench.models.criterion import LossTerm
from detrbench.models.losses import Losses, Supervision, focal_loss
from detrbench.models.matcher import Matched
from detrbench.models.precision import in_full
from detrbench.models.targets import Objects
from detrbench.models.tokens import Tokens

if TYPE_CHECKING:
    from detrbench.models.detector import DetectorOutput


class ForegroundLoss(LossTerm):
    """Focal loss of the raw token scores, an image's sum over its number of foreground tokens (at least 1).

    Args:
        intervals: see `foreground_labels`.
    """

    weights = MappingProxyType({"loss_foreground": 1.5})

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
        """Mean over images; padding counts as background."""
        assert out.encoded.foreground is not None
        scores = in_full(out.encoded.foreground)
        labels = foreground_labels(out.tokens, objects, self.intervals).to(scores)
        losses = focal_loss(scores, labels).sum(1) / labels.sum(1).clamp(min=1)
        return {"loss_foreground": losses.mean()}


@torch.no_grad()
def foreground_labels(tokens: Tokens, objects: Objects, intervals: Sequence[Sequence[float]]) -> Tensor:
    """(B, S) bool: the token's centre lies inside a box whose farthest side is at a distance of its level's interval.

    Args:
        tokens: the pyramid.
        objects: T of them, boxes as fractions of the valid image area.
        intervals: for each level (least, most] in pixels, the first exclusive.
    """
    centres, least, most = token_centres(tokens, intervals)
    corners = cxcywh_to_xyxy(objects.boxes) * tokens.image_sizes[objects.image].repeat(1, 2)  # (T, 4) pixels
    low, high = corners[:, None].split(2, -1)
    sides = torch.cat([centres - low, high - centres], -1)  # (T, S, 4)
    farthest = sides.amax(-1)
    inside = (sides.amin(-1) > 0) & (farthest > least) & (farthest <= most)
    count = torch.zeros(len(objects.counts), len(centres), dtype=torch.long, device=inside.device)
    return count.index_add(0, objects.image, inside.long()) > 0


def token_centres(tokens: Tokens, intervals: Sequence[Sequence[float]]) -> tuple[Tensor, Tensor, Tensor]:
    """Each token's centre (S, 2) in pixels, and the bounds (S,) of its level's interval."""
    like = tokens.image_sizes
    centres, least, most = [], [], []
    for level, ((height, width), interval) in enumerate(zip(tokens.sizes, intervals)):
        stride = tokens.finest_stride * 2**level
        y, x = torch.meshgrid(
            torch.arange(height, device=like.device), torch.arange(width, device=like.device), indexing="ij"
        )
        centres.append(torch.stack([x, y], -1).flatten(0, 1) * stride + stride // 2)
        least.append(like.new_full((height * width,), interval[0]))
        most.append(like.new_full((height * width,), interval[1]))
    return torch.cat(centres).to(like), torch.cat(least), torch.cat(most)
