"""What the sampled operations accept, checked on types, shapes and devices alone: works on meta and fake tensors.

What stands inside `spatial_shapes` and `level_start_index` is checked where it is read, in the kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor

VALUE_TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_inputs(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> None:
    """Raise TypeError or ValueError, which say what was expected and what was found. See `ops.msda`."""
    _check_types(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)
    _check_shapes(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)
    _check_devices(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)


def _check_types(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> None:
    if value.dtype not in VALUE_TYPES:
        raise TypeError(f"msda: value must be float32, float64, float16 or bfloat16, got {value.dtype}")
    for name, tensor in (("sampling_locations", locations), ("attention_weights", weights)):
        if tensor.dtype not in VALUE_TYPES or (tensor.dtype == torch.float64 and value.dtype != torch.float64):
            raise TypeError(f"msda: {name} is {tensor.dtype}, which does not fit a value of {value.dtype}")
    for name, tensor in (("spatial_shapes", shapes), ("level_start_index", starts)):
        if tensor.dtype != torch.int64:
            raise TypeError(f"msda: {name} must be int64, got {tensor.dtype}")


def _check_shapes(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> None:
    if value.dim() != 4:
        raise ValueError(f"msda: value must be (N, S, M, D), got {tuple(value.shape)}")
    if locations.dim() != 6 or locations.shape[5] != 2:
        raise ValueError(f"msda: sampling_locations must be (N, Q, M, L, P, 2), got {tuple(locations.shape)}")
    for index, name, size in ((0, "N", value.shape[0]), (2, "M", value.shape[2])):
        if locations.shape[index] != size:
            raise ValueError(
                f"msda: {name} is {size} in value {tuple(value.shape)} and {locations.shape[index]} "
                f"in sampling_locations {tuple(locations.shape)}"
            )
    levels = locations.shape[3]
    if levels == 0:
        raise ValueError("msda: there must be at least one level")
    for tensor_name, tensor, expected in (
        ("attention_weights", weights, tuple(locations.shape[:5])),
        ("spatial_shapes", shapes, (levels, 2)),
        ("level_start_index", starts, (levels,)),
    ):
        if tuple(tensor.shape) != expected:
            raise ValueError(f"msda: {tensor_name} must be {expected}, got {tuple(tensor.shape)}")


def _check_devices(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> None:
    for name, tensor in (("sampling_locations", locations), ("attention_weights", weights)):
        if tensor.device != value.device:
            raise ValueError(f"msda: {name} is on {tensor.device}, value on {value.device}")
    for name, tensor in (("spatial_shapes", shapes), ("level_start_index", starts)):
        if tensor.device != value.device and tensor.device.type != "cpu":
            raise ValueError(f"msda: {name} is on {tensor.device}; it belongs on {value.device} or on the CPU")


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
            raise ValueError(f"msda: level {level} of spatial_shapes is {height} x {width}")
        if start != expected:
            raise ValueError(
                f"msda: level_start_index[{level}] is {start}, but the levels before it hold {expected} tokens"
            )
        expected += height * width
    if expected != tokens:
        raise ValueError(f"msda: spatial_shapes hold {expected} tokens, value has {tokens}")
