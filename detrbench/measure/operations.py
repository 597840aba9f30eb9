"""How much work one PyTorch operation is, as (kind, units): a table from operator names to formulas.

Formulas read shapes only, so they work on meta tensors. What a unit costs is the counting rule's business
(`rules.CountingRule`). An operator that no formula knows yields no work and is listed as uncounted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor

from detrbench.models.ops.flops import sampled_channels

Work = list[tuple[str, int]]  # (kind, units)
Formula = Callable[[tuple[Any, ...], Any], Work]  # (arguments, output) -> work

# Neither arithmetic nor traffic: new views, uninitialised memory, questions. They are not even listed.
FREE = {
    "aten::_unsafe_view",
    "aten::detach",
    "aten::empty",
    "aten::empty_like",
    "aten::empty_strided",
    "aten::new_empty",
    "aten::lift_fresh",
    "aten::promote_types",
    "prim::device",
}

# Tagged as pointwise, yet they move or compare: no arithmetic.
_NOT_ARITHMETIC = {
    "aten::clone",
    "aten::copy_",
    "aten::where",
    "aten::masked_fill",
    "aten::masked_fill_",
    "aten::fill_",
    "aten::zero_",
    "aten::isnan",
    "aten::isinf",
    "aten::isfinite",
}


def work(func: torch._ops.OpOverload, args: tuple[Any, ...], out: Any) -> Work | None:
    """The work of one call: None for views and allocations, [] for what no formula counts."""
    formula = _formula(func)
    return None if formula is None else formula(args, out)


def work_of(name: str, overload: str, is_view: bool, pointwise: bool, args: tuple[Any, ...], out: Any) -> Work | None:
    """The work of one call that another PyTorch has made; that one's word counts where ours has no such operation."""
    namespace, _, operator = name.partition("::")
    func = getattr(getattr(getattr(torch.ops, namespace), operator, None), overload or "default", None)
    formula = _formula_of(name, is_view, pointwise) if func is None else _formula(func)
    return None if formula is None else formula(args, out)


@functools.cache
def _formula(func: torch._ops.OpOverload) -> Formula | None:
    return _formula_of(func._schema.name, func.is_view, torch.Tag.pointwise in func.tags)


def _formula_of(name: str, is_view: bool, pointwise: bool) -> Formula | None:
    if is_view or name in FREE:
        return None
    if name in _FORMULAS:
        return _FORMULAS[name]
    if pointwise and name not in _NOT_ARITHMETIC:
        return _elementwise
    return lambda args, out: []


def _elementwise(args: tuple[Any, ...], out: Any) -> Work:
    # Comparisons and index arithmetic give bool or integers: no floating-point work.
    return [("elementwise", out.numel())] if isinstance(out, Tensor) and out.is_floating_point() else []


def _output(kind: str) -> Formula:
    return lambda args, out: [(kind, (out[0] if isinstance(out, tuple) else out).numel())]


def _input(kind: str) -> Formula:
    return lambda args, out: [(kind, args[0].numel())] if args[0].is_floating_point() else []


def _matmul(first: int) -> Formula:
    """`first` is the position of the left matrix; the last dimension of it is the one that is summed over."""
    return lambda args, out: [("matmul", out.numel() * args[first].shape[-1])]


def _dot(args: tuple[Any, ...], out: Any) -> Work:
    return [("matmul", args[0].numel())]


def _convolution(args: tuple[Any, ...], out: Tensor) -> Work:
    image, weight, transposed = args[0], args[1], args[6]
    # weight: (out, in/groups, kh, kw), or (in, out/groups, kh, kw) where it is transposed
    return [("convolution", (image if transposed else out).numel() * prod(weight.shape[1:]))]


def _attention(args: tuple[Any, ...], out: Any) -> Work:
    query_BMQD, key_BMKD, value_BMKD = args[:3]
    scores = prod(query_BMQD.shape[:-1]) * key_BMKD.shape[-2]
    return [("matmul", scores * (query_BMQD.shape[-1] + value_BMKD.shape[-1])), ("softmax", scores)]


def _multi_head_attention(args: tuple[Any, ...], out: Any) -> Work:
    """The fused fast path of `nn.MultiheadAttention` in eval: in-projection, scores, values, out-projection."""
    (batch, queries, width), keys, heads = args[0].shape, args[1].shape[1], args[4]
    projections = batch * width * width * (2 * queries + 2 * keys)
    scores = batch * queries * keys
    return [("matmul", projections + 2 * scores * width), ("softmax", scores * heads)]


def _deformable_attention(args: tuple[Any, ...], out: Tensor) -> Work:
    value, locations = args[0], args[3]
    return [("deformable_attention", sampled_channels(value.shape, locations.shape))]


def _attention_from_offsets(args: tuple[Any, ...], out: Tensor) -> Work:
    """With the softmax and the places: offsets divided and added for a point; also times side and 0.5 for a box."""
    value, offsets, reference_points = args[0], args[3], args[5]
    points, steps = prod(offsets.shape[:-1]), 2 if reference_points.shape[-1] == 2 else 4
    return [
        ("deformable_attention", sampled_channels(value.shape, offsets.shape)),
        ("softmax", points),
        ("elementwise", 2 * steps * points),
    ]


def _deformable_convolution(args: tuple[Any, ...], out: Tensor) -> Work:
    """torchvision's: each weight meets a sampled value, which the second version weighs by a mask."""
    image, weight, masked = args[0], args[1], args[13]
    pixels = out.shape[0] * prod(out.shape[2:])
    samples = pixels * image.shape[1] * prod(weight.shape[2:])
    weighing = [("elementwise", samples)] if masked else []
    return [("convolution", out.numel() * prod(weight.shape[1:])), ("grid_sample", samples), *weighing]


def _roi_align(args: tuple[Any, ...], out: Tensor) -> Work:
    return _roi_align_work(out, args[5])


def _roi_align_work(out: Tensor, side: int) -> Work:
    """torchvision's: `side` x `side` samples of each output cell, and their mean; without it the size of boxes says."""
    samples = out.numel() * side**2
    return [("grid_sample", samples), ("reduction", samples)] if side > 0 else []


def _key_aware_attention(args: tuple[Any, ...], out: Any) -> Work:
    """Logits and weighting are matrix products, as in dense attention; x, y to pixels (4) and the scaled logit (1)."""
    value, locations = args[0], args[3]
    channels, points = sampled_channels(value.shape, locations.shape), prod(locations.shape[:-1])
    return [
        ("key_aware_sampling", channels),
        ("matmul", 2 * channels),
        ("softmax", points),
        ("elementwise", 5 * points),
    ]


_FORMULAS: dict[str, Formula] = {
    "detrbench::msda": _deformable_attention,
    "detrbench::msda_from_offsets": _attention_from_offsets,
    "detrbench::key_aware_attention": _key_aware_attention,
    "aten::mm": _matmul(0),
    "aten::mv": _matmul(0),
    "aten::bmm": _matmul(0),
    "aten::addmm": _matmul(1),
    "aten::addmv": _matmul(1),
    "aten::baddbmm": _matmul(1),
    "aten::dot": _dot,
    "aten::vdot": _dot,
    "aten::convolution": _convolution,
    "aten::_native_multi_head_attention": _multi_head_attention,
    **dict.fromkeys(
        (
            "aten::_scaled_dot_product_flash_attention",
            "aten::_scaled_dot_product_flash_attention_for_cpu",
            "aten::_scaled_dot_product_efficient_attention",
            "aten::_scaled_dot_product_cudnn_attention",
            "aten::_scaled_dot_product_fused_attention_overrideable",
            "aten::_scaled_dot_product_attention_math",
        ),
        _attention,
    ),
    **dict.fromkeys(("aten::native_layer_norm", "aten::native_group_norm", "aten::_fused_rms_norm"), _output("norm")),
    **dict.fromkeys(
        (
            "aten::native_batch_norm",
            "aten::_native_batch_norm_legit",
            "aten::_native_batch_norm_legit_no_training",
            "aten::_batch_norm_with_update",
            "aten::cudnn_batch_norm",
        ),
        _output("batch_norm"),
    ),
    **dict.fromkeys(("aten::_softmax", "aten::_safe_softmax", "aten::_log_softmax"), _output("softmax")),
    "torchvision::deform_conv2d": _deformable_convolution,
    "torchvision::roi_align": _roi_align,
    "aten::grid_sampler_2d": _output("grid_sample"),
    "aten::upsample_nearest2d": _output("nearest"),
    "aten::upsample_bilinear2d": _output("bilinear"),
    **dict.fromkeys(
        (
            "aten::sum",
            "aten::mean",
            "aten::prod",
            "aten::cumsum",
            "aten::var",
            "aten::std",
            "aten::linalg_vector_norm",
            "aten::avg_pool2d",
            "aten::_adaptive_avg_pool2d",
        ),
        _input("reduction"),
    ),
}


def _frozen_batch_norm(said: Mapping[str, Any], out: Tensor) -> tuple[str, Work]:
    """However it is written (two operators, one, a call to batch_norm), it is one frozen batch norm."""
    return "frozen_batch_norm", [("frozen_batch_norm", out.numel())]


def _multi_scale_roi_align(said: Mapping[str, Any], out: Tensor) -> tuple[str, Work]:
    """Each box is on one level, which only its values say."""
    return "torchvision::roi_align", _roi_align_work(out, said["sampling_ratio"])


AS_ONE: Mapping[str, Callable[[Mapping[str, Any], Tensor], tuple[str, Work]]] = {
    "FrozenBatchNorm": _frozen_batch_norm,
    "MultiScaleRoIAlign": _multi_scale_roi_align,
}
"""What the name of a module's class contains -> from its attributes and its output, what it is counted as, since its
operators say less."""


def as_one(kind: str) -> Callable[[Mapping[str, Any], Tensor], tuple[str, Work]] | None:
    """How a module of that class is counted as one; None for all others."""
    return next((counted for part, counted in AS_ONE.items() if part in kind), None)
