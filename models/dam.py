"""The decoder's cross-attention as a map over the encoder's tokens (DAM), and how much of it falls on given tokens.

Sparse DETR (Roh et al., ICLR 2022, section 3.3) trains its score network on the map and reports the share. Shapes:
B images, S tokens, Q queries, M heads, L levels, P points.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detrbench.models.precision import in_full


@torch.no_grad()
def decoder_attention_map(
    sampling_locations: Sequence[Tensor],
    attention_weights: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
) -> Tensor:
    """Attention mass of each token, summed over decoder layers, heads and queries.

    Each weight is spread bilinearly over the four cells around `location * (W, H)`; cells outside get nothing. There is
    no half-pixel shift, as in the official code, so the map lies half a cell beside the points that are really sampled
    (the attention itself reads at `location * (W, H) - 0.5`).

    Args:
        sampling_locations: by layer, (B, Q, M, L, P, 2) x, y as a fraction of the padded level.
        attention_weights: by layer, (B, Q, M, L, P).
        sizes: (height, width) of each level.

    Returns:
        (B, S) in float32 at least, tokens level by level, row-major.
    """
    levels = []
    for level, size in enumerate(sizes):
        points = torch.cat([each[..., level, :, :].flatten(1, 3) for each in sampling_locations], 1)
        weights = torch.cat([each[..., level, :].flatten(1, 3) for each in attention_weights], 1)
        levels.append(_splat(points, in_full(weights), size))
    return torch.cat(levels, 1)


def _splat(locations: Tensor, weights: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H * W) sums of weights (B, n) at locations (B, n, 2)."""
    height, width = size
    total = weights.new_zeros(len(weights), height * width)
    points = torch.stack([locations[..., 0] * width, locations[..., 1] * height], -1)
    corner = points.floor()
    fraction = points - corner
    for dx in (0, 1):
        for dy in (0, 1):
            x, y = corner[..., 0] + dx, corner[..., 1] + dy
            share_x = fraction[..., 0] if dx else 1 - fraction[..., 0]
            share_y = fraction[..., 1] if dy else 1 - fraction[..., 1]
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)  # False for NaN, too
            index = torch.where(inside, y * width + x, 0).long()
            total.scatter_add_(1, index, torch.where(inside, weights * share_x * share_y, 0).to(total.dtype))
    return total


def corr(attention: Tensor, kept: Tensor) -> Tensor:
    """Sparse DETR's Corr: the share of the attention mass that falls on kept tokens. Not a Pearson correlation.

    Args:
        attention: (B, S) from `decoder_attention_map`, or a slice of it for one level.
        kept: (B, S) bool, True on kept tokens.

    Returns:
        (B,) in 0..1; NaN where there is no mass at all.
    """
    return (attention * kept).sum(1) / attention.sum(1)


def kept_mask(kept_tokens: Sequence[Tensor], num_tokens: int) -> Tensor:
    """Token indices of each image -> (B, S) bool, True on them."""
    mask = torch.zeros(len(kept_tokens), num_tokens, dtype=torch.bool, device=kept_tokens[0].device)
    for row, indices in zip(mask, kept_tokens):
        row[indices] = True
    return mask
