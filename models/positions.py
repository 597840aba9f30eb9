"""Sine embeddings of positions (Vaswani et al., 2017, in two dimensions as DETR uses them)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sine_embedding(values: Tensor, num_features: int, temperature: float) -> Tensor:
    """(..., n) angles -> (..., n * F): sine on even features, cosine on odd ones, interleaved."""
    index = torch.arange(num_features, device=values.device, dtype=values.dtype)
    period = temperature ** (2 * torch.div(index, 2, rounding_mode="floor") / num_features)
    angles = values[..., None] / period  # (..., n, F)
    pairs = torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], -1)
    return pairs.flatten(-3)


def grid_positions(padding: Tensor, hidden_dim: int, temperature: float, offset: float, dtype: torch.dtype) -> Tensor:
    """Embedding of each cell's place within the valid area.

    Args:
        padding: (B, H, W) bool, True on padding.
        hidden_dim: C; half for y, then half for x.
        temperature: of the sine embedding.
        offset: added to the running count of valid cells before it is scaled to 2 pi; -0.5 puts cell centres there.
        dtype: of the result.

    Returns:
        (B, C, H, W).
    """
    valid = (~padding).to(dtype)
    y, x = valid.cumsum(1), valid.cumsum(2)
    eps = 1e-6
    y = (y + offset) / (y[:, -1:] + eps) * 2 * math.pi
    x = (x + offset) / (x[:, :, -1:] + eps) * 2 * math.pi
    return sine_embedding(torch.stack([y, x], -1), hidden_dim // 2, temperature).permute(0, 3, 1, 2)


def index_positions(padding: Tensor, hidden_dim: int, temperature: float, dtype: torch.dtype) -> Tensor:
    """Embedding of each cell's row and column, as in RT-DETR.

    Its own code puts rows and columns of a map that is not square the wrong way round; transformers does not.

    Args:
        padding: (B, H, W), of which the shape alone is read.
        hidden_dim: C; a quarter each for sines of the row, its cosines, and both of the column.
        temperature: of the sine embedding.
        dtype: of the result.

    Returns:
        (B, C, H, W).
    """
    batch, height, width = padding.shape
    quarter = hidden_dim // 4
    device = padding.device
    frequency = temperature ** -(torch.arange(quarter, device=device, dtype=dtype) / quarter)
    rows, columns = (torch.arange(n, device=device, dtype=dtype)[:, None] * frequency for n in (height, width))
    y = torch.cat([rows.sin(), rows.cos()], -1)[:, None].expand(-1, width, -1)
    x = torch.cat([columns.sin(), columns.cos()], -1)[None].expand(height, -1, -1)
    return torch.cat([y, x], -1).permute(2, 0, 1).expand(batch, -1, -1, -1)


def box_positions(boxes: Tensor, num_features: int, temperature: float = 10000) -> Tensor:
    """(..., n) coordinates in [0, 1] -> (..., n * F), in the order given."""
    return sine_embedding(boxes * 2 * math.pi, num_features, temperature)
