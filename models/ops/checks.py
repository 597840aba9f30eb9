"""What the sampled operations accept, checked on types, shapes and devices alone: works on meta and fake tensors.

What stands inside `spatial_shapes` and `level_start_index` is checked where it is read, in the kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor

VALUE_TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_msda(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> None:
    """Raise TypeError or ValueError unless `value` is (N, S, M, D) and the others fit it, as `ops.msda` says."""
    _check_dense("attention_weights", weights)
    _check_sampling(value, shapes, starts, locations)
    _check_companion("attention_weights", weights, tuple(locations.shape[:5]), value)


def check_from_offsets(
    value: Tensor, shapes: Tensor, starts: Tensor, offsets: Tensor, logits: Tensor, reference_points: Tensor
) -> None:
    """Raise TypeError or ValueError unless `value` is (N, S, M, D) and the others fit it: `ops.msda_from_offsets`."""
    _check_dense("logits", logits)
    _check_dense("reference_points", reference_points)
    _check_sampling(value, shapes, starts, offsets, "offsets")
    _check_companion("logits", logits, tuple(offsets.shape[:5]), value)
    coordinates = 4 if reference_points.dim() == 4 and reference_points.shape[3] == 4 else 2
    expected = (*offsets.shape[:2], offsets.shape[3], coordinates)
    if tuple(reference_points.shape) != expected:
        wanted = f"({', '.join(map(str, expected[:3]))}, 2 or 4)"
        raise ValueError(f"reference_points must be {wanted}, got {tuple(reference_points.shape)}")
    _check_companion("reference_points", reference_points, expected, value)


def check_key_aware(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, query: Tensor) -> None:
    """Raise TypeError or ValueError unless `value` is (N, S, M, D) and the others fit it: `ops.key_aware_attention`."""
    _check_dense("query", query)
    _check_sampling(value, shapes, starts, locations)
    _check_companion("query", query, (*locations.shape[:3], value.shape[3]), value)
    if query.dtype != value.dtype:
        raise TypeError(f"query is {query.dtype}, value {value.dtype}: keys are values, so both must be of one type")


def _check_dense(name: str, given: object) -> None:
    """A tensor with its numbers in memory, one after the other or at strides."""
    if not isinstance(given, Tensor) or given.layout != torch.strided:
        found = given.layout if isinstance(given, Tensor) else type(given).__name__
        raise TypeError(f"{name} must be a dense tensor, got {found}")


def _check_sampling(
    value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, called: str = "sampling_locations"
) -> None:
    """Where is sampled, and from what; `called` is the caller's name for its locations, or offsets."""
    names = ("value", "spatial_shapes", "level_start_index", called)
    for name, tensor in zip(names, (value, shapes, starts, locations), strict=True):
        _check_dense(name, tensor)
    if value.dtype not in VALUE_TYPES:
        raise TypeError(f"value must be float32, float64, float16 or bfloat16, got {value.dtype}")
    if value.dim() != 4:
        raise ValueError(f"value must be (N, S, M, D), got {tuple(value.shape)}")
    if locations.dim() != 6 or locations.shape[5] != 2:
        raise ValueError(f"{called} must be (N, Q, M, L, P, 2), got {tuple(locations.shape)}")
    for index, name, size in ((0, "N", value.shape[0]), (2, "M", value.shape[2])):
        if locations.shape[index] != size:
            raise ValueError(
                f"{name} is {size} in value {tuple(value.shape)} and {locations.shape[index]} "
                f"in {called} {tuple(locations.shape)}"
            )
    levels = locations.shape[3]
    if levels == 0:
        raise ValueError("there must be at least one level")
    _check_companion(called, locations, tuple(locations.shape), value)
    _check_index("spatial_shapes", shapes, (levels, 2), value)
    _check_index("level_start_index", starts, (levels,), value)


def _check_companion(name: str, tensor: Tensor, shape: tuple[int, ...], value: Tensor) -> None:
    """A floating-point tensor that goes with the value."""
    if tensor.dtype not in VALUE_TYPES or (tensor.dtype == torch.float64 and value.dtype != torch.float64):
        raise TypeError(f"{name} is {tensor.dtype}, which does not fit a value of {value.dtype}")
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must be {shape}, got {tuple(tensor.shape)}")
    if tensor.device != value.device:
        raise ValueError(f"{name} is on {tensor.device}, value on {value.device}")


def _check_index(name: str, tensor: Tensor, shape: tuple[int, ...], value: Tensor) -> None:
    """A tensor that describes the levels."""
    if tensor.dtype != torch.int64:
        raise TypeError(f"{name} must be int64, got {tensor.dtype}")
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must be {shape}, got {tuple(tensor.shape)}")
    if tensor.device != value.device and tensor.device.type != "cpu":
        raise ValueError(f"{name} is on {tensor.device}; it belongs on {value.device} or on the CPU")


def check_levels(sizes: list[list[int]], starts: list[int], tokens: int) -> None:
    """Raise ValueError unless the levels fill the tokens one after the other without gap.

    Args:
        sizes: height and width of each level.
        starts: first token of each level.
        tokens: S.
    """
    expected = 0
    for level, ((height, width), start) in enumerate(zip(sizes, starts, strict=True)):
        if height < 0 or width < 0:
            raise ValueError(f"level {level} of spatial_shapes is {height} x {width}")
        if start != expected:
            raise ValueError(f"level_start_index[{level}] is {start}, but the levels before it hold {expected} tokens")
        expected += height * width
    if expected != tokens:
        raise ValueError(f"spatial_shapes hold {expected} tokens, value has {tokens}")
