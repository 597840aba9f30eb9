"""Key-aware deformable attention (Lite DETR, section 3.4) in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detrbench.models.ops.reference import sample_points


def key_aware_attention(
    value: Tensor, sizes: Sequence[Sequence[int]], sampling_locations: Tensor, query: Tensor
) -> tuple[Tensor, Tensor]:
    """Dot-product attention of each query to the values at its own sampling points; keys are the values themselves.

    A point outside its level has key and value zero: its logit is 0, so it takes a share of the weight.

    Args:
        value: (N, S, M, D).
        sizes: height and width of each level.
        sampling_locations: (N, Q, M, L, P, 2) x, y in [0, 1] of the level.
        query: (N, Q, M, D).

    Returns:
        (N, Q, M * D) output and (N, Q, M, L, P) weights.
    """
    batch, _, heads, levels, points, _ = sampling_locations.shape
    sampled = sample_points(value, sizes, sampling_locations)  # (NM, D, Q, LP)
    asked = query.transpose(1, 2).flatten(0, 1)  # (NM, Q, D)
    logits = torch.einsum("xqd,xdqp->xqp", asked, sampled) * value.shape[-1] ** -0.5
    weights = logits.softmax(-1)
    output = torch.einsum("xqp,xdqp->xqd", weights, sampled)
    return (
        output.unflatten(0, (batch, heads)).transpose(1, 2).flatten(2),
        weights.unflatten(0, (batch, heads)).transpose(1, 2).unflatten(-1, (levels, points)),
    )
