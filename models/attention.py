"""Attention: sampled (deformable) and dense (self-attention among queries).

Shapes: N images, Q queries, S tokens, M heads, L levels, P points, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrbench.models import ops
from detrbench.models.dimensions import Dimensions
from detrbench.models.tokens import Points, PointsByLevel, SampledPoints, Tokens


class Sampled(NamedTuple):
    """Output (N, Q, C), and where it was sampled."""

    output: Tensor
    points: Points


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention (Deformable DETR, equation 3)."""

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        width, points = (
            dimensions.hidden_dim,
            dimensions.num_heads * dimensions.num_levels * dimensions.num_points,
        )
        self.layout = (dimensions.num_heads, dimensions.num_levels, dimensions.num_points)
        self.sampling_offsets = nn.Linear(width, points * 2)
        self.attention_weights = nn.Linear(width, points)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)
        look_outward(self.sampling_offsets, self.layout)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(self, query: Tensor, reference_points: Tensor, memory: Tensor, tokens: Tokens) -> Sampled:
        """Attend from each query to a few points of `memory`.

        Args:
            query: (N, Q, C), position included.
            reference_points: (N, Q, L, 2) x, y or (N, Q, L, 4) cx, cy, w, h, as fractions of the padded level.
            memory: (N, S, C) tokens that are sampled; those on padding count as zero.
            tokens: the geometry of `memory`.
        """
        value = project_values(self.value_proj, memory, tokens).unflatten(-1, (self.layout[0], -1))
        offsets = self.sampling_offsets(query).unflatten(-1, (*self.layout, 2))
        logits = self.attention_weights(query).unflatten(-1, self.layout)
        levels = (tokens.spatial_shapes, tokens.level_start_index)
        output = ops.msda_from_offsets(value, *levels, offsets, logits, reference_points)
        return Sampled(
            self.output_proj(output), SampledPoints(reference_points, offsets, tokens.spatial_shapes, logits=logits)
        )


class KeyAwareAttention(nn.Module):
    """Key-aware deformable attention (Lite DETR, section 3.4).

    Weights are softmax(query . key / sqrt(D)) over all sampled points of a head, where `DeformableAttention` reads them
    off the query alone. Keys are the projected values themselves.
    """

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        width = dimensions.hidden_dim
        self.layout = (dimensions.num_heads, dimensions.num_levels, dimensions.num_points)
        self.sampling_offsets = nn.Linear(width, math.prod(self.layout) * 2)
        self.value_proj = nn.Linear(width, width)
        self.query_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)
        look_outward(self.sampling_offsets, self.layout)
        for projection in (self.value_proj, self.query_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(self, query: Tensor, reference_points: Tensor, memory: Tensor, tokens: Tokens) -> Sampled:
        """Attend from each query to a few points of `memory`; arguments as for `DeformableAttention`."""
        value = project_values(self.value_proj, memory, tokens)
        offsets = self.sampling_offsets(query).unflatten(-1, (*self.layout, 2))
        heads = (self.layout[0], -1)
        output, weights = ops.key_aware_attention(
            value.unflatten(-1, heads),
            tokens.spatial_shapes,
            tokens.level_start_index,
            ops.sampling_locations(tokens.spatial_shapes, offsets, reference_points),
            self.query_proj(query).unflatten(-1, heads),
        )
        points = SampledPoints(reference_points, offsets, tokens.spatial_shapes, given_weights=weights)
        return Sampled(self.output_proj(output), points)


class AttentionByLevel(nn.Module):
    """Multi-scale deformable attention with a number of points for each level, and a choice of sampling (RT-DETRv2).

    Args:
        dimensions: widths, heads and the number of levels.
        level_points: points of a head on each level, fine to coarse; only the last ones where there are fewer levels.
            None for `num_points` on each.
        nearest: sample the nearest cell ("discrete"), which hands no gradient to the offsets; they stay as they are.
    """

    def __init__(self, dimensions: Dimensions, level_points: Sequence[int] | None, nearest: bool) -> None:
        super().__init__()
        width, heads, levels = dimensions.hidden_dim, dimensions.num_heads, dimensions.num_levels
        self.heads, self.nearest = heads, nearest
        self.level_points = list(level_points or [dimensions.num_points] * levels)[-levels:]
        points = heads * sum(self.level_points)
        self.sampling_offsets = nn.Linear(width, points * 2)
        self.attention_weights = nn.Linear(width, points)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)
        directions = [outward(heads, 1, count).flatten(1, 2) for count in self.level_points]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(torch.cat(directions, 1).flatten())
        for silent in (self.sampling_offsets.weight, self.attention_weights.weight, self.attention_weights.bias):
            nn.init.zeros_(silent)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)
        self.sampling_offsets.requires_grad_(not nearest)

    def forward(self, query: Tensor, reference_points: Tensor, memory: Tensor, tokens: Tokens) -> Sampled:
        """Attend from each query to a few points of `memory`; arguments as for `DeformableAttention`."""
        value = project_values(self.value_proj, memory, tokens).unflatten(-1, (self.heads, -1))
        offsets = self.sampling_offsets(query).unflatten(-1, (self.heads, -1, 2)).split(self.level_points, 3)
        weights = ops.sampling_weights(self.attention_weights(query).unflatten(-1, (self.heads, 1, -1)))
        weights = weights[:, :, :, 0].split(self.level_points, 3)
        values = value.split(tokens.cells, 1)
        sampled, levels = [], []
        for level, size in enumerate(tokens.sizes):
            shape = tokens.spatial_shapes[level : level + 1]
            reference = reference_points[:, :, level : level + 1]
            places = ops.sampling_locations(shape, offsets[level][:, :, :, None], reference)  # (N, Q, M, 1, P, 2)
            if self.nearest:
                cells = nearest_cells(places[:, :, :, 0], size)
                sampled.append(gather_cells(values[level], cells, size, weights[level]))
            else:
                given = weights[level][:, :, :, None]
                start = tokens.level_start_index[:1]  # which is zero
                sampled.append(ops.msda(values[level], shape, start, places, given))
            levels.append((places[:, :, :, 0], weights[level]))
        return Sampled(self.output_proj(torch.stack(sampled).sum(0)), PointsByLevel(levels))


def nearest_cells(locations: Tensor, size: tuple[int, int]) -> Tensor:
    """(..., 2) x, y as fractions of a level -> (..., 2) int64 column and row of a cell of it, half a cell behind.

    The official code rounds the location times the size, as if cells had their centres where they begin.
    """
    height, width = size
    column = (locations[..., 0] * width + 0.5).long().clamp(0, width - 1)
    row = (locations[..., 1] * height + 0.5).long().clamp(0, height - 1)
    return torch.stack([column, row], -1)


def gather_cells(value: Tensor, cells: Tensor, size: tuple[int, int], weights: Tensor) -> Tensor:
    """What queries see of a level.

    Args:
        value: (N, S_l, M, D) of the level's cells, row by row.
        cells: (N, Q, M, P, 2) column and row.
        size: height and width.
        weights: (N, Q, M, P).

    Returns:
        (N, Q, M * D).
    """
    depth = value.shape[3]
    index = (cells[..., 1] * size[1] + cells[..., 0]).transpose(1, 2)  # (N, M, Q, P)
    rows = index.flatten(2)[..., None].expand(-1, -1, -1, depth)
    found = value.transpose(1, 2).gather(2, rows).unflatten(2, index.shape[2:])  # (N, M, Q, P, D)
    return (found * weights.transpose(1, 2)[..., None]).sum(3).transpose(1, 2).flatten(2)


def sampled_attention(dimensions: Dimensions) -> DeformableAttention | KeyAwareAttention:
    """The kind of sampled attention that the detector uses throughout."""
    return KeyAwareAttention(dimensions) if dimensions.key_aware else DeformableAttention(dimensions)


def look_outward(sampling_offsets: nn.Linear, layout: tuple[int, int, int]) -> None:
    """Each head starts out looking in its own direction, point p at distance p (Deformable DETR, appendix A.4)."""
    with torch.no_grad():
        sampling_offsets.bias.copy_(outward(*layout).flatten())
    nn.init.zeros_(sampling_offsets.weight)


def outward(heads: int, levels: int, points: int) -> Tensor:
    """(M, L, P, 2) offsets: the direction of each head, onto the unit square, times 1, 2, ... P."""
    angle = torch.arange(heads) * (2 * math.pi / heads)
    direction = torch.stack([angle.cos(), angle.sin()], -1)
    direction = direction / direction.abs().amax(-1, keepdim=True)
    distance = torch.arange(1, points + 1)
    offsets = direction[:, None, None] * distance[None, None, :, None]  # (M, 1, P, 2)
    return offsets.expand(heads, levels, points, 2)


def project_values(projection: nn.Linear, memory: Tensor, tokens: Tokens) -> Tensor:
    """(N, S, C) -> (N, S, C), zero on padding."""
    value = projection(memory)
    return value.masked_fill(tokens.padding[..., None], 0.0) if tokens.padded else value


class SelfAttention(nn.Module):
    """Multi-head attention among queries; parameters named as in `torch.nn.MultiheadAttention`.

    That module is not used because its fused path in eval mode hides its multiply-adds from every counter.
    """

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        width = dimensions.hidden_dim
        self.num_heads, self.dropout = dimensions.num_heads, dimensions.dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, content: Tensor, position: Tensor, blocked: Tensor | None = None) -> Tensor:
        """Queries and keys are content plus position, values content alone.

        Args:
            content: (N, Q, C).
            position: (N, Q, C).
            blocked: (Q, Q), or (N, 1, 1, Q) of each image, bool, True where the row must not see the column.
        """
        width = content.shape[-1]
        queries_and_keys = F.linear(
            content + position, self.in_proj_weight[: 2 * width], self.in_proj_bias[: 2 * width]
        )
        values = F.linear(content, self.in_proj_weight[2 * width :], self.in_proj_bias[2 * width :])
        query, key = queries_and_keys.chunk(2, -1)
        split = (self.num_heads, width // self.num_heads)
        mixed = F.scaled_dot_product_attention(
            query.unflatten(-1, split).transpose(1, 2),
            key.unflatten(-1, split).transpose(1, 2),
            values.unflatten(-1, split).transpose(1, 2),
            attn_mask=None if blocked is None else ~blocked,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out_proj(mixed.transpose(1, 2).flatten(2))
