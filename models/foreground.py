"""Which tokens are foreground, by the boxes (Focus-DETR, section 3.2): labels and loss of its token scores."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

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
    centres = token_centres(tokens)
    fits = around(centres, tokens, objects, intervals).fits
    count = torch.zeros(len(objects.counts), len(centres), dtype=torch.long, device=fits.device)
    return count.index_add(0, objects.image, fits.long()) > 0


class Around(NamedTuple):
    """Where T boxes lie around S tokens, in pixels of the image.

    Attributes:
        sides: (T, S, 4) distance of a token's centre from the left, top, right and bottom side, negative beyond it.
        inside: (T, S) bool, the centre lies inside the box.
        fits: (T, S) bool, and the farthest side is at a distance of the interval of the token's level.
    """

    sides: Tensor
    inside: Tensor
    fits: Tensor


def around(centres: Tensor, tokens: Tokens, objects: Objects, intervals: Sequence[Sequence[float]]) -> Around:
    """How each box lies around each token.

    Args:
        centres: (S, 2) x, y of the tokens in pixels.
        tokens: the pyramid.
        objects: T of them, boxes as fractions of the valid image area.
        intervals: for each level (least, most] in pixels, the first exclusive.
    """
    corners = cxcywh_to_xyxy(objects.boxes) * tokens.image_sizes[objects.image].repeat(1, 2)  # (T, 4) pixels
    low, high = corners[:, None].split(2, -1)
    sides = torch.cat([centres - low, high - centres], -1)
    least, most = (
        torch.cat([centres.new_full((cells,), bound) for cells, bound in zip(tokens.cells, bounds)])
        for bounds in zip(*intervals)
    )
    inside, farthest = sides.amin(-1) > 0, sides.amax(-1)
    return Around(sides, inside, inside & (farthest > least) & (farthest <= most))


def token_centres(tokens: Tokens) -> Tensor:
    """(S, 2) x, y of each token's centre in pixels, a stride from one to the next."""
    like = tokens.image_sizes
    centres = []
    for level, (height, width) in enumerate(tokens.sizes):
        stride = tokens.finest_stride * 2**level
        y, x = torch.meshgrid(
            torch.arange(height, device=like.device), torch.arange(width, device=like.device), indexing="ij"
        )
        centres.append(torch.stack([x, y], -1).flatten(0, 1) * stride + stride // 2)
    return torch.cat(centres).to(like)
