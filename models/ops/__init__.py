"""The sampled operations that the detectors here are built on: deformable attention, plain and key-aware.

    from detrbench.models import ops

    output = ops.msda(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)
    output = ops.msda_from_offsets(value, spatial_shapes, level_start_index, offsets, logits, reference_points)
    output, attention_weights = ops.key_aware_attention(
        value, spatial_shapes, level_start_index, sampling_locations, query
    )

The native kernels (`csrc/`) are compiled when an operation first runs, never at import. Where they cannot be
compiled the reference in PyTorch runs instead and says so; `ops.status()` tells which of the two it is, and why.
"""

from __future__ import annotations

from torch import Tensor

from detrbench.models.ops import registration
from detrbench.models.ops.build import status
from detrbench.models.ops.checks import check_from_offsets, check_key_aware, check_msda
from detrbench.models.ops.flops import grid_sample_macs, key_aware_macs, msda_macs
from detrbench.models.ops.reference import sampling_locations, sampling_weights

__all__ = [
    "grid_sample_macs",
    "key_aware_attention",
    "key_aware_macs",
    "msda",
    "msda_from_offsets",
    "msda_macs",
    "sampling_locations",
    "sampling_weights",
    "status",
]


def msda(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Multi-scale deformable attention (Zhu et al. 2021, equation 3), without its projections.

    Each query sums, over L levels and P points, the bilinearly interpolated value at a location times a weight.
    Location 0 is the outer edge of a level's first pixel and 1 that of its last one (pixel = location * size - 0.5,
    `align_corners=False`); beyond them the value is zero.

    Args:
        value: (N, S, M, D), S tokens of M heads: the levels' pixels one after the other, row by row. Fastest on
            the CPU where the tokens of a head follow each other in memory.
        spatial_shapes: (L, 2) int64, height and width of each level; on the device of `value` or on the CPU.
        level_start_index: (L,) int64, the first token of each level; on the device of `value` or on the CPU.
        sampling_locations: (N, Q, M, L, P, 2), x and y as fractions of the level.
        attention_weights: (N, Q, M, L, P).

    Returns:
        (N, Q, M * D) in the type of `value`. Half types are summed in float32. Under autocast `value` takes the
        autocast type; locations and weights keep theirs, since bfloat16 cannot address the pixels of a wide level.

    A point whose location is not finite, or lies outside, contributes exactly zero and gets zero gradients.
    Gradients of `value` are the same bits on every run and with any number of threads on the CPU; on a GPU they are
    sums in no fixed order, unless `torch.use_deterministic_algorithms(True)` asks for one, which is slower.

    Raises:
        TypeError: a type or layout that the operation does not take.
        ValueError: shapes, devices or levels that do not fit each other.
        NotImplementedError: a derivative by `torch.func` or in forward mode.
    """
    check_msda(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)
    registration.refuse_transforms(value, sampling_locations, attention_weights)
    return registration.MSDA(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)


def msda_from_offsets(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    offsets: Tensor,
    logits: Tensor,
    reference_points: Tensor,
) -> Tensor:
    """`msda` at `sampling_locations(spatial_shapes, offsets, reference_points)` with `sampling_weights(logits)`.

    On the CPU neither of the two is ever written to memory; elsewhere they are made first.

    Args:
        value: as for `msda`, like the next two.
        spatial_shapes: (L, 2) int64.
        level_start_index: (L,) int64.
        offsets: (N, Q, M, L, P, 2), in cells of the level around a point, or in parts of half the side around a box.
        logits: (N, Q, M, L, P), whose softmax over levels and points the weights are.
        reference_points: (N, Q, L, 2) x, y or (N, Q, L, 4) cx, cy, w, h, as fractions of the level.

    Returns:
        As `msda`. Locations and weights are computed in float32, whatever the types of the last three, or in float64.

    Raises:
        TypeError: a type or layout that the operation does not take.
        ValueError: shapes, devices or levels that do not fit each other.
        NotImplementedError: a derivative by `torch.func` or in forward mode.
    """
    check_from_offsets(value, spatial_shapes, level_start_index, offsets, logits, reference_points)
    registration.refuse_transforms(value, offsets, logits, reference_points)
    return registration.FROM_OFFSETS(value, spatial_shapes, level_start_index, offsets, logits, reference_points)


def key_aware_attention(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    query: Tensor,
) -> tuple[Tensor, Tensor]:
    """Key-aware deformable attention (Lite DETR, section 3.4), without its projections.

    Each query and head attends to the values at its own L x P locations by scaled dot product: logit = query . key /
    sqrt(D), one softmax over all of them. Keys are the sampled values themselves. Sampling is that of `msda`; a point
    that reaches no pixel has key and value zero, so its logit is 0 and it takes its share of the weight.

    Args:
        value: (N, S, M, D), S tokens of M heads: the levels' pixels one after the other, row by row.
        spatial_shapes: (L, 2) int64, height and width of each level; on the device of `value` or on the CPU.
        level_start_index: (L,) int64, the first token of each level; on the device of `value` or on the CPU.
        sampling_locations: (N, Q, M, L, P, 2), x and y as fractions of the level.
        query: (N, Q, M, D), in the type of `value`.

    Returns:
        Output (N, Q, M * D) in the type of `value`, and the weights (N, Q, M, L, P), which are not differentiable, in
        the type that sums are kept in: float32, or float64 for float64. Under autocast `value` and `query` take the
        autocast type and locations keep theirs.

    A point whose location is not finite gets zero gradients. Gradients of `value` are the same bits on every run and
    with any number of threads on the CPU; on a GPU they are sums in no fixed order, unless
    `torch.use_deterministic_algorithms(True)` asks for one.

    Raises:
        TypeError: a type or layout that the operation does not take.
        ValueError: shapes, devices or levels that do not fit each other.
        NotImplementedError: a derivative by `torch.func` or in forward mode.
    """
    check_key_aware(value, spatial_shapes, level_start_index, sampling_locations, query)
    registration.refuse_transforms(value, sampling_locations, query)
    output, weights = registration.KEY_AWARE(value, spatial_shapes, level_start_index, sampling_locations, query)
    return output, weights
