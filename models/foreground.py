"""Which tokens are foreground, by the boxes (Focus-DETR, section 3.2): labels and loss of its token scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from detrbench.models.boxes import cxcywh_to_xyxy
from detrbench.models.criterion import LossTerm
from detrbench.models.losses import Losses, Supervision, focal_loss
from detrbench.models.matcher import Target
from detrbench.models.tokens import Tokens

if TYPE_CHECKING:
    from detrbench.models.detector import DetectorOutput


class ForegroundLoss(LossTerm):
    """Focal loss of the raw token scores, an image's sum over its number of foreground tokens (at least 1).

    Args:
        intervals: see `foreground_labels`.
    """

    weights: ClassVar[dict[str, float]] = {"loss_foreground": 1.5}

    def __init__(self, intervals: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.intervals = intervals

    def forward(self, out: DetectorOutput, targets: list[Target], num_boxes: float, supervision: Supervision) -> Losses:
        """Mean over images; padding counts as background."""
        scores = out.encoded.foreground
        assert scores is not None
        labels = foreground_labels(out.tokens, targets, self.intervals).to(scores)
        losses = focal_loss(scores, labels).sum(1) / labels.sum(1).clamp(min=1)
        return {"loss_foreground": losses.mean()}


@torch.no_grad()
def foreground_labels(tokens: Tokens, targets: list[Target], intervals: Sequence[Sequence[float]]) -> Tensor:
    """(B, S) bool: the token's centre lies inside a box whose farthest side is at a distance of its level's interval.

    Args:
        tokens: the pyramid.
        targets: `boxes` (n, 4) cx, cy, w, h in [0, 1] of the valid image area.
        intervals: for each level (least, most] in pixels, the first exclusive.
    """
    centres, least, most = token_centres(tokens, intervals)
    labels = []
    for size, target in zip(tokens.image_sizes, targets):
        corners = cxcywh_to_xyxy(target["boxes"].to(centres)) * size.repeat(2)  # (n, 4) pixels
        low, high = corners.split(2, -1)
        sides = torch.cat([centres[:, None] - low, high - centres[:, None]], -1)  # (S, n, 4)
        farthest = sides.amax(-1)
        inside = (sides.amin(-1) > 0) & (farthest > least[:, None]) & (farthest <= most[:, None])
        labels.append(inside.any(-1))
    return torch.stack(labels)


def token_centres(tokens: Tokens, intervals: Sequence[Sequence[float]]) -> tuple[Tensor, Tensor, Tensor]:
    """Each token's centre (S, 2) in pixels, and the bounds (S,) of its level's interval."""
    centres, bounds = [], []
    for level, ((height, width), interval) in enumerate(zip(tokens.sizes, intervals)):
        stride = tokens.finest_stride * 2**level
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centres.append(torch.stack([x, y], -1).flatten(0, 1) * stride + stride // 2)
        bounds.append(torch.tensor(interval, dtype=tokens.features.dtype).expand(height * width, 2))
    least, most = torch.cat(bounds).to(tokens.features.device).unbind(-1)
    return torch.cat(centres).to(tokens.features), least, most
