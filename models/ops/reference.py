"""Multi-scale deformable attention in plain PyTorch: the truth that the kernels are held against.

It also runs where the kernels cannot be compiled. Shapes: value (N, S, M, D), locations (N, Q, M, L, P, 2),
weights (N, Q, M, L, P).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from detrbench.models.ops.checks import check_levels


def grid_sample_msda(value: Tensor, sizes: Sequence[Sequence[int]], locations: Tensor, weights: Tensor) -> Tensor:
    """The formulation that every DETR code base carries: one `grid_sample` a level, heads in the batch.

    Args:
        value: (N, S, M, D).
        sizes: height and width of each level.
        locations: (N, Q, M, L, P, 2).
        weights: (N, Q, M, L, P).

    Returns:
        (N, Q, M * D).
    """
    batch, _, heads, depth = value.shape
    share = weights.transpose(1, 2).flatten(0, 1).flatten(2)[:, None]  # (NM, 1, Q, LP)
    output = (sample_points(value, sizes, locations) * share).sum(-1)  # (NM, D, Q)
    return output.view(batch, heads * depth, locations.shape[1]).transpose(1, 2).contiguous()


def sample_points(value: Tensor, sizes: Sequence[Sequence[int]], locations: Tensor) -> Tensor:
    """(N, S, M, D) at (N, Q, M, L, P, 2) -> (NM, D, Q, LP), zero outside the levels."""
    batch, _, heads, depth = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    grids = locations.mul(2).sub(1).transpose(1, 2).flatten(0, 1)  # (NM, Q, L, P, 2) in [-1, 1]
    levels = value.split([height * width for height, width in sizes], dim=1)
    sampled = []  # for each level (NM, D, Q, P)
    for level, ((height, width), tokens) in enumerate(zip(sizes, levels, strict=True)):
        if height * width == 0:
            sampled.append(value.new_zeros(batch * heads, depth, queries, points))
            continue
        image = tokens.permute(0, 2, 3, 1).reshape(batch * heads, depth, height, width)
        sampled.append(F.grid_sample(image, grids[:, :, level], padding_mode="zeros", align_corners=False))
    return torch.stack(sampled, dim=-2).flatten(-2)


def msda_reference(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """`ops.msda`, differentiable by autograd: half types in float32, points that reach no pixel masked out."""
    sizes = shapes.tolist()
    check_levels(sizes, starts.tolist(), value.shape[1])
    exact = torch.promote_types(value.dtype, torch.float32)
    locations, weights = locations.to(exact), weights.to(exact)
    extent = shapes.flip(-1).to(locations)[:, None]  # (L, 1, 2) width, height
    pixel = locations.detach() * extent - 0.5
    reached = ((pixel > -1) & (pixel < extent)).all(-1)  # not a number compares false
    output = grid_sample_msda(
        value.to(exact),
        sizes,
        torch.where(reached[..., None], locations, -1.0),  # -1 lies outside any level
        torch.where(reached, weights, 0.0),
    )
    return output.to(value.dtype)


def msda_backward_reference(
    grad_output: Tensor, value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `value`, `locations` and `weights`, each in the type of its tensor."""
    with torch.enable_grad():
        inputs = [tensor.detach().requires_grad_() for tensor in (value, locations, weights)]
        output = msda_reference(inputs[0], shapes, starts, inputs[1], inputs[2])
        gradients = torch.autograd.grad(output, inputs, grad_output, materialize_grads=True)
    return gradients[0], gradients[1], gradients[2]
