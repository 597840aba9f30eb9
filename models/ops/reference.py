"""The sampled operations in plain PyTorch: the truth that the kernels are held against.

They also run where the kernels cannot be compiled. Shapes: value (N, S, M, D), locations (N, Q, M, L, P, 2),
weights and logits (N, Q, M, L, P), offsets (N, Q, M, L, P, 2), reference points (N, Q, L, 2 or 4), query (N, Q, M, D).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from detrbench.models.ops.checks import check_levels
from detrbench.models.precision import full_type, in_full


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


def key_aware(value: Tensor, sizes: Sequence[Sequence[int]], locations: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """Dot-product attention of each query to the values at its own points; keys are the values (Lite DETR, 3.4).

    Args:
        value: (N, S, M, D).
        sizes: height and width of each level.
        locations: (N, Q, M, L, P, 2).
        query: (N, Q, M, D).

    Returns:
        (N, Q, M * D) output and (N, Q, M, L, P) weights.
    """
    batch, _, heads, levels, points, _ = locations.shape
    sampled = sample_points(value, sizes, locations)  # (NM, D, Q, LP)
    asked = query.transpose(1, 2).flatten(0, 1)  # (NM, Q, D)
    logits = torch.einsum("xqd,xdqp->xqp", asked, sampled) * max(value.shape[-1], 1) ** -0.5
    weights = logits.softmax(-1)
    output = torch.einsum("xqp,xdqp->xqd", weights, sampled)
    return (
        output.unflatten(0, (batch, heads)).transpose(1, 2).flatten(2),
        weights.unflatten(0, (batch, heads)).transpose(1, 2).unflatten(-1, (levels, points)).contiguous(),
    )


def msda_reference(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """`ops.msda`, (N, Q, M * D), differentiable: half types in float32, points that reach no pixel masked out."""
    sizes, locations, reached = _exact_points(value, shapes, starts, locations)
    weights = torch.where(reached, weights.to(locations), 0.0)
    return grid_sample_msda(value.to(locations), sizes, locations, weights).to(value.dtype)


def key_aware_reference(
    value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, query: Tensor
) -> tuple[Tensor, Tensor]:
    """`ops.key_aware_attention`, (N, Q, M * D) and (N, Q, M, L, P), differentiable: half types in float32."""
    sizes, locations, _ = _exact_points(value, shapes, starts, locations)
    output, weights = key_aware(value.to(locations), sizes, locations, query.to(locations))
    return output.to(value.dtype), weights


def _exact_points(
    value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor
) -> tuple[list[list[int]], Tensor, Tensor]:
    """Checked level sizes; locations in the type of the sums, those that reach no pixel moved to where `grid_sample`
    gives exact zeros; and (N, Q, M, L, P) bool, which of them reach one.
    """
    sizes = shapes.tolist()
    check_levels(sizes, starts.tolist(), value.shape[1])
    locations = locations.to(full_type(value.dtype))
    extent = shapes.flip(-1).to(locations)[:, None]  # (L, 1, 2) width, height
    pixel = locations.detach() * extent - 0.5
    reached = ((pixel > -1) & (pixel < extent)).all(-1)  # not a number compares false
    return sizes, torch.where(reached[..., None], locations, -1.0), reached  # -1 lies outside any level


def sampling_locations(shapes: Tensor, offsets: Tensor, reference_points: Tensor) -> Tensor:
    """(N, Q, M, L, P, 2) as fractions of the level, in float32 at least.

    Offsets count cells around a point, or parts of half the side around a box (Deformable DETR, appendix A.4).
    """
    offsets = in_full(offsets)
    centre = reference_points[:, :, None, :, None, :2]
    if reference_points.shape[-1] == 2:
        return centre + offsets / shapes.flip(-1)[:, None].clamp(min=1).to(offsets)  # no cells: nothing is reached
    size = reference_points[:, :, None, :, None, 2:]
    return centre + offsets / offsets.shape[-2] * size * 0.5


def sampling_weights(logits: Tensor) -> Tensor:
    """(N, Q, M, L, P), in float32 at least: the softmax over levels and points."""
    logits = in_full(logits)
    return logits.flatten(3).softmax(-1).view(logits.shape)


def msda_backward_reference(
    grad_output: Tensor, value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(N, Q, M * D) gradient of the output -> those of `value`, `locations`, `weights`, typed as these are."""
    with torch.enable_grad():
        inputs = [tensor.detach().requires_grad_() for tensor in (value, locations, weights)]
        output = msda_reference(inputs[0], shapes, starts, inputs[1], inputs[2])
        gradients = torch.autograd.grad(output, inputs, grad_output, materialize_grads=True)
    return gradients[0], gradients[1], gradients[2]


def key_aware_backward_reference(
    grad_output: Tensor, value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, query: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(N, Q, M * D) gradient of the output -> those of `value`, `locations`, `query`, typed as these are."""
    with torch.enable_grad():
        inputs = [tensor.detach().requires_grad_() for tensor in (value, locations, query)]
        output, _ = key_aware_reference(inputs[0], shapes, starts, inputs[1], inputs[2])
        gradients = torch.autograd.grad(output, inputs, grad_output, materialize_grads=True)
    return gradients[0], gradients[1], gradients[2]
