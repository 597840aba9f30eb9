"""The operations as PyTorch knows them: schema, shapes, gradients, autocast, multiply-adds, and a first kernel.

The kernels registered here for every device compile the native ones when they first run. Those then take the calls
of their device, and these stay as the way to the reference where there are none.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.flop_counter import register_flop_formula

from detrbench.models.ops import build
from detrbench.models.ops.checks import check_from_offsets, check_key_aware, check_msda
from detrbench.models.ops.flops import key_aware_macs, msda_macs
from detrbench.models.ops.reference import (
    key_aware_backward_reference,
    key_aware_reference,
    msda_backward_reference,
    msda_reference,
    sampling_locations,
    sampling_weights,
)
from detrbench.models.precision import full_type

Three = tuple[Tensor, Tensor, Tensor]
Four = tuple[Tensor, Tensor, Tensor, Tensor]

LEVELS = "Tensor value, Tensor spatial_shapes, Tensor level_start_index"
OFFSETS = f"{LEVELS}, Tensor offsets, Tensor logits, Tensor reference_points"
SAMPLED = f"{LEVELS}, Tensor sampling_locations"
_library = torch.library.Library("detrbench", "FRAGMENT")
for _schema in (
    f"msda({SAMPLED}, Tensor attention_weights) -> Tensor",
    f"msda_backward(Tensor grad_output, {SAMPLED}, Tensor attention_weights) -> (Tensor, Tensor, Tensor)",
    f"msda_from_offsets({OFFSETS}) -> Tensor",
    f"msda_from_offsets_backward(Tensor grad_output, {OFFSETS}) -> (Tensor, Tensor, Tensor, Tensor)",
    f"key_aware_attention({SAMPLED}, Tensor query) -> (Tensor, Tensor)",
    f"key_aware_attention_backward(Tensor grad_output, {SAMPLED}, Tensor query, Tensor attention_weights)"
    " -> (Tensor, Tensor, Tensor)",
):
    _library.define(_schema, tags=(torch.Tag.pt2_compliant_tag,))

MSDA = torch.ops.detrbench.msda.default
MSDA_BACKWARD = torch.ops.detrbench.msda_backward.default
FROM_OFFSETS = torch.ops.detrbench.msda_from_offsets.default
FROM_OFFSETS_BACKWARD = torch.ops.detrbench.msda_from_offsets_backward.default
KEY_AWARE = torch.ops.detrbench.key_aware_attention.default
KEY_AWARE_BACKWARD = torch.ops.detrbench.key_aware_attention_backward.default


# --- the first kernel: native ones, or the reference --------------------------------------------------------------
# Arguments are checked first: a call that has no native kernel, as one with a sparse value, would come back for ever.


def _msda(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    check_msda(value, shapes, starts, locations, weights)
    if build.native_kernels(value.device.type):
        return MSDA(value, shapes, starts, locations, weights)
    return msda_reference(value, shapes, starts, locations, weights)


def _msda_backward(
    grad_output: Tensor, value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor
) -> Three:
    check_msda(value, shapes, starts, locations, weights)
    if build.native_kernels(value.device.type):
        return MSDA_BACKWARD(grad_output, value, shapes, starts, locations, weights)
    with _autograd_inside_a_kernel():
        return msda_backward_reference(grad_output, value, shapes, starts, locations, weights)


def _msda_from_offsets(
    value: Tensor, shapes: Tensor, starts: Tensor, offsets: Tensor, logits: Tensor, reference_points: Tensor
) -> Tensor:
    check_from_offsets(value, shapes, starts, offsets, logits, reference_points)
    if _has_native(FROM_OFFSETS, value):
        return FROM_OFFSETS(value, shapes, starts, offsets, logits, reference_points)
    locations = sampling_locations(shapes, offsets, reference_points)
    return MSDA(value, shapes, starts, locations.to(full_type(value.dtype)), sampling_weights(logits))


def _msda_from_offsets_backward(
    grad_output: Tensor,
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    offsets: Tensor,
    logits: Tensor,
    reference_points: Tensor,
) -> Four:
    check_from_offsets(value, shapes, starts, offsets, logits, reference_points)
    if _has_native(FROM_OFFSETS_BACKWARD, value):
        return FROM_OFFSETS_BACKWARD(grad_output, value, shapes, starts, offsets, logits, reference_points)
    with _autograd_inside_a_kernel(), torch.enable_grad():
        inputs = [tensor.detach().requires_grad_() for tensor in (offsets, logits, reference_points)]
        points = (
            sampling_locations(shapes, inputs[0], inputs[2]).to(full_type(value.dtype)),
            sampling_weights(inputs[1]),
        )
        with torch.no_grad():
            grad_value, *of_points = MSDA_BACKWARD(grad_output, value, shapes, starts, *points)
        return grad_value, *torch.autograd.grad(points, inputs, of_points)


def _has_native(operation: torch._ops.OpOverload, value: Tensor) -> bool:
    """Whether there is a compiled kernel of this operation for the value's device: some have fewer than others."""
    device = value.device.type
    return build.native_kernels(device) and torch._C._dispatch_has_kernel_for_dispatch_key(
        operation.name(), device.upper()
    )


def _key_aware(
    value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, query: Tensor
) -> tuple[Tensor, Tensor]:
    check_key_aware(value, shapes, starts, locations, query)
    if build.native_kernels(value.device.type):
        return KEY_AWARE(value, shapes, starts, locations, query)
    return key_aware_reference(value, shapes, starts, locations, query)


def _key_aware_backward(
    grad_output: Tensor,
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    locations: Tensor,
    query: Tensor,
    weights: Tensor,
) -> Three:
    check_key_aware(value, shapes, starts, locations, query)
    if build.native_kernels(value.device.type):
        return KEY_AWARE_BACKWARD(grad_output, value, shapes, starts, locations, query, weights)
    with _autograd_inside_a_kernel():
        return key_aware_backward_reference(grad_output, value, shapes, starts, locations, query)


def _autograd_inside_a_kernel() -> AbstractContextManager[None]:
    """Let autograd record again: PyTorch switches it off below the gradient of an operation."""
    autograd = torch._C.DispatchKeySet(torch._C.DispatchKey.AutogradFunctionality)
    for key in ("CPU", "CUDA", "Other"):
        autograd |= torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, f"Autograd{key}"))
    excluded = torch._C._dispatch_tls_local_exclude_set() - autograd
    return torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), excluded)


_library.impl("msda", _msda, "CompositeExplicitAutograd")
_library.impl("msda_backward", _msda_backward, "CompositeExplicitAutograd")
_library.impl("msda_from_offsets", _msda_from_offsets, "CompositeExplicitAutograd")
_library.impl("msda_from_offsets_backward", _msda_from_offsets_backward, "CompositeExplicitAutograd")
_library.impl("key_aware_attention", _key_aware, "CompositeExplicitAutograd")
_library.impl("key_aware_attention_backward", _key_aware_backward, "CompositeExplicitAutograd")


# --- shapes -------------------------------------------------------------------------------------------------------


@torch.library.register_fake("detrbench::msda", lib=_library)
def _msda_shape(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    check_msda(value, shapes, starts, locations, weights)
    return value.new_empty(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])


@torch.library.register_fake("detrbench::msda_backward", lib=_library)
def _msda_backward_shapes(
    grad_output: Tensor, value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor
) -> Three:
    check_msda(value, shapes, starts, locations, weights)
    return value.new_empty(value.shape), locations.new_empty(locations.shape), weights.new_empty(weights.shape)


@torch.library.register_fake("detrbench::msda_from_offsets", lib=_library)
def _from_offsets_shape(
    value: Tensor, shapes: Tensor, starts: Tensor, offsets: Tensor, logits: Tensor, reference_points: Tensor
) -> Tensor:
    check_from_offsets(value, shapes, starts, offsets, logits, reference_points)
    return value.new_empty(value.shape[0], offsets.shape[1], value.shape[2] * value.shape[3])


@torch.library.register_fake("detrbench::msda_from_offsets_backward", lib=_library)
def _from_offsets_backward_shapes(
    grad_output: Tensor,
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    offsets: Tensor,
    logits: Tensor,
    reference_points: Tensor,
) -> Four:
    check_from_offsets(value, shapes, starts, offsets, logits, reference_points)
    grads = [tensor.new_empty(tensor.shape) for tensor in (value, offsets, logits, reference_points)]
    return grads[0], grads[1], grads[2], grads[3]


@torch.library.register_fake("detrbench::key_aware_attention", lib=_library)
def _key_aware_shapes(
    value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, query: Tensor
) -> tuple[Tensor, Tensor]:
    check_key_aware(value, shapes, starts, locations, query)
    output = value.new_empty(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])
    return output, value.new_empty(locations.shape[:5], dtype=full_type(value.dtype))


@torch.library.register_fake("detrbench::key_aware_attention_backward", lib=_library)
def _key_aware_backward_shapes(
    grad_output: Tensor,
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    locations: Tensor,
    query: Tensor,
    weights: Tensor,
) -> Three:
    check_key_aware(value, shapes, starts, locations, query)
    return value.new_empty(value.shape), locations.new_empty(locations.shape), query.new_empty(query.shape)


# --- gradients ----------------------------------------------------------------------------------------------------


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _msda_gradients(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    grad_value, grad_locations, grad_weights = MSDA_BACKWARD(grad_output, *ctx.saved_tensors)
    return grad_value, None, None, grad_locations, grad_weights


def _from_offsets_gradients(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    grad_value, *grads = FROM_OFFSETS_BACKWARD(grad_output, *ctx.saved_tensors)
    return grad_value, None, None, *grads


def _keep_weights(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])
    ctx.mark_non_differentiable(output[1])


def _key_aware_gradients(ctx: Any, grad_output: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    grad_value, grad_locations, grad_query = KEY_AWARE_BACKWARD(grad_output, *ctx.saved_tensors)
    return grad_value, None, None, grad_locations, grad_query


def _no_second_gradient(ctx: Any, *grad_outputs: Tensor) -> None:
    raise NotImplementedError("the sampled operations have no second derivative")


torch.library.register_autograd("detrbench::msda", _msda_gradients, setup_context=_keep_inputs, lib=_library)
torch.library.register_autograd(
    "detrbench::msda_from_offsets", _from_offsets_gradients, setup_context=_keep_inputs, lib=_library
)
torch.library.register_autograd(
    "detrbench::key_aware_attention", _key_aware_gradients, setup_context=_keep_weights, lib=_library
)
torch.library.register_autograd("detrbench::msda_backward", _no_second_gradient, lib=_library)
torch.library.register_autograd("detrbench::msda_from_offsets_backward", _no_second_gradient, lib=_library)
torch.library.register_autograd("detrbench::key_aware_attention_backward", _no_second_gradient, lib=_library)


def refuse_transforms(*tensors: Tensor) -> None:
    """Raise NotImplementedError where PyTorch would take a derivative in a way that the operations know nothing of.

    Without this, forward mode would find zero, and `torch.func.grad` an error about the insides of `torch.library`.
    """
    if torch.compiler.is_compiling():  # which refuses these itself
        return
    forward = forward_ad._current_level >= 0
    for tensor in tensors:
        if torch._C._functorch.is_gradtrackingtensor(tensor) or (
            forward and forward_ad.unpack_dual(tensor).tangent is not None
        ):
            raise NotImplementedError(
                "the sampled operations have no derivatives under torch.func or forward mode: "
                "use torch.autograd.grad or backward()"
            )


# --- autocast -----------------------------------------------------------------------------------------------------


def _autocast(operation: Any, narrowed: tuple[int, ...], device_type: str) -> None:
    """Let some arguments take the autocast type. `torch.library.register_autocast` knows fixed types only."""
    below = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU) | torch._C.DispatchKeySet(
        torch._C.DispatchKey.AutocastCUDA
    )

    def kernel(*arguments: Tensor) -> Any:
        given = list(arguments)
        for index in narrowed:
            if given[index].dtype != torch.float64:  # as autocast treats every op: float64 stays
                given[index] = given[index].to(torch.get_autocast_dtype(device_type))
        with torch._C._ExcludeDispatchKeyGuard(below):
            return operation(*given)

    _library.impl(operation, kernel, f"Autocast{device_type.upper()}")


for _device in ("cpu", "cuda"):
    _autocast(MSDA, (0,), _device)  # value
    _autocast(FROM_OFFSETS, (0,), _device)
    _autocast(KEY_AWARE, (0, 4), _device)  # value and query


# --- multiply-adds ------------------------------------------------------------------------------------------------
# A backward is one pass for the gradients of what each query reads, one for those of `value`, as torch counts a
# convolution.


@register_flop_formula([torch.ops.detrbench.msda, torch.ops.detrbench.msda_from_offsets])
def _msda_flops(value_shape: Any, shapes: Any, starts: Any, places_shape: Any, *others: Any, **kwargs: Any) -> int:
    return 2 * msda_macs(value_shape, places_shape)  # places and softmax are elementwise, which torch does not count


@register_flop_formula([torch.ops.detrbench.msda_backward, torch.ops.detrbench.msda_from_offsets_backward])
def _msda_backward_flops(grad_shape: Any, *inputs: Any, **kwargs: Any) -> int:
    return 2 * _msda_flops(*inputs)


@register_flop_formula(torch.ops.detrbench.key_aware_attention)
def _key_aware_flops(
    value_shape: Any, shapes: Any, starts: Any, locations_shape: Any, *others: Any, **kwargs: Any
) -> int:
    return 2 * key_aware_macs(value_shape, locations_shape)


@register_flop_formula(torch.ops.detrbench.key_aware_attention_backward)
def _key_aware_backward_flops(grad_shape: Any, *inputs: Any, **kwargs: Any) -> int:
    return 2 * _key_aware_flops(*inputs)
