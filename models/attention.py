"""Attention: sampled (deformable) and dense (self-attention among queries).

Shapes: N images, Q queries, S tokens, M heads, L levels, P points, C channels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrbench.models import ops
from detrbench.models.dimensions import Dimensions
from detrbench.models.tokens import SampledPoints, Tokens


class Sampled(NamedTuple):
    """Output (N, Q, C), and where it was sampled."""

    output: Tensor
    points: SampledPoints


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


def sampled_attention(dimensions: Dimensions) -> DeformableAttention | KeyAwareAttention:
    """The kind of sampled attention that the detector uses throughout."""
    return KeyAwareAttention(dimensions) if dimensions.key_aware else DeformableAttention(dimensions)


def look_outward(sampling_offsets: nn.Linear, layout: tuple[int, int, int]) -> None:
    """Each head starts out looking in its own direction, point p at distance p (Deformable DETR, appendix A.4)."""
    heads, levels, points = layout
    angle = torch.arange(heads) * (2 * math.pi / heads)
    direction = torch.stack([angle.cos(), angle.sin()], -1)
    direction = direction / direction.abs().amax(-1, keepdim=True)  # onto the unit square
    distance = torch.arange(1, points + 1)
    offsets = direction[:, None, None] * distance[None, None, :, None]  # (M, 1, P, 2)
    with torch.no_grad():
        sampling_offsets.bias.copy_(offsets.expand(heads, levels, points, 2).flatten())
    nn.init.zeros_(sampling_offsets.weight)


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
            blocked: (Q, Q) bool, True where the row must not see the column.
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
