"""The operations as PyTorch knows them: schema, shapes, gradients, autocast, multiply-adds, and a first kernel.

The kernel registered here for every device compiles the native ones when it first runs. Those then take the calls
of their device, and this one stays as the way to the reference where there are none.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from detrbench.models.ops import build
from detrbench.models.ops.checks import check_inputs
from detrbench.models.ops.flops import msda_macs
from detrbench.models.ops.reference import msda_backward_reference, msda_reference

ARGUMENTS = (
    "Tensor value, Tensor spatial_shapes, Tensor level_start_index, Tensor sampling_locations, Tensor attention_weights"
)
_library = torch.library.Library("detrbench", "FRAGMENT")
_library.define(f"msda({ARGUMENTS}) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,))
_library.define(
    f"msda_backward(Tensor grad_output, {ARGUMENTS}) -> (Tensor, Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)

MSDA = torch.ops.detrbench.msda.default
MSDA_BACKWARD = torch.ops.detrbench.msda_backward.default


def _msda(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    if build.native_kernels(value.device.type):
        return MSDA(value, shapes, starts, locations, weights)
    check_inputs(value, shapes, starts, locations, weights)
    return msda_reference(value, shapes, starts, locations, weights)


def _msda_backward(
    grad_output: Tensor, value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    if build.native_kernels(value.device.type):
        return MSDA_BACKWARD(grad_output, value, shapes, starts, locations, weights)
    check_inputs(value, shapes, starts, locations, weights)
    with _autograd_inside_a_kernel():
        return msda_backward_reference(grad_output, value, shapes, starts, locations, weights)


def _autograd_inside_a_kernel() -> AbstractContextManager[None]:
    """Let autograd record again: PyTorch switches it off below the gradient of an operation."""
    autograd = torch._C.DispatchKeySet(torch._C.DispatchKey.AutogradFunctionality)
    for key in ("CPU", "CUDA", "Other"):
        autograd |= torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, f"Autograd{key}"))
    excluded = torch._C._dispatch_tls_local_exclude_set() - autograd
    return torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), excluded)


_library.impl("msda", _msda, "CompositeExplicitAutograd")
_library.impl("msda_backward", _msda_backward, "CompositeExplicitAutograd")


@torch.library.register_fake("detrbench::msda", lib=_library)
def _msda_shape(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    check_inputs(value, shapes, starts, locations, weights)
    return value.new_empty(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])


@torch.library.register_fake("detrbench::msda_backward", lib=_library)
def _msda_backward_shapes(
    grad_output: Tensor, value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    check_inputs(value, shapes, starts, locations, weights)
    return (
        value.new_empty(value.shape),
        locations.new_empty(locations.shape),
        weights.new_empty(weights.shape),
    )


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    grad_value, grad_locations, grad_weights = MSDA_BACKWARD(grad_output, *ctx.saved_tensors)
    return grad_value, None, None, grad_locations, grad_weights


def _no_second_gradient(ctx: Any, *grad_outputs: Tensor) -> None:
    raise NotImplementedError("msda has no second derivative")


torch.library.register_autograd("detrbench::msda", _gradients, setup_context=_keep_inputs, lib=_library)
torch.library.register_autograd("detrbench::msda_backward", _no_second_gradient, lib=_library)


def _autocast(device_type: str) -> None:
    """Let `value` take the autocast type. `torch.library.register_autocast` knows fixed types only."""
    below = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU) | torch._C.DispatchKeySet(
        torch._C.DispatchKey.AutocastCUDA
    )

    def kernel(value: Tensor, *others: Tensor) -> Tensor:
        if value.dtype != torch.float64:  # as autocast treats every op: float64 stays
            value = value.to(torch.get_autocast_dtype(device_type))
        with torch._C._ExcludeDispatchKeyGuard(below):
            return MSDA(value, *others)

    _library.impl("msda", kernel, f"Autocast{device_type.upper()}")


_autocast("cpu")
_autocast("cuda")


@register_flop_formula(torch.ops.detrbench.msda)
def _msda_flops(value_shape: Any, shapes: Any, starts: Any, locations_shape: Any, *others: Any, **kwargs: Any) -> int:
    return 2 * msda_macs(value_shape, locations_shape)


@register_flop_formula(torch.ops.detrbench.msda_backward)
def _msda_backward_flops(
    grad_shape: Any,
    value_shape: Any,
    shapes: Any,
    starts: Any,
    locations_shape: Any,
    *others: Any,
    **kwargs: Any,
) -> int:
    # One pass for the gradients of locations and weights, one for those of `value`, as torch counts a convolution.
    return 2 * _msda_flops(value_shape, shapes, starts, locations_shape)
