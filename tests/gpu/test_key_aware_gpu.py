"""Key-aware deformable attention on a CUDA device: against the reference in float64, and as PyTorch uses it there."""

from __future__ import annotations

import math

import pytest
import torch
from op_cases import (
    CASES,
    IDS,
    TOLERANCE,
    Case,
    assert_close,
    key_aware_gradients,
    key_aware_inputs,
    off_pixels,
    true_key_aware,
    true_key_aware_gradients,
)
from torch import Tensor

from detrbench.models import ops

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
TYPES = list(TOLERANCE)


def compare(arguments: list[Tensor], tolerance: float) -> None:
    """Output, weights and gradients against the reference."""
    output, weights = ops.key_aware_attention(*arguments)
    assert output.dtype == arguments[0].dtype
    for found, truth in zip((output, weights), true_key_aware(arguments), strict=True):
        assert_close(found, truth, tolerance)
    grad_output = torch.randn(output.shape, device="cuda").to(output.dtype)
    for found, truth in zip(
        key_aware_gradients(arguments, grad_output), true_key_aware_gradients(grad_output, arguments), strict=True
    ):
        assert_close(found, truth, tolerance)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_everything_is_the_references(case: Case, dtype: torch.dtype) -> None:
    compare(key_aware_inputs(case, dtype, "cuda"), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_encoders_size(dtype: torch.dtype) -> None:
    case = Case("encoder", ((100, 152), (50, 76), (25, 38), (13, 19)), queries=20197, heads=8)
    compare(
        off_pixels(key_aware_inputs(case, dtype, "cuda")), 4 * TOLERANCE[dtype]
    )  # thousands of terms in no fixed order


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
def test_half_values_take_float32_locations(half: torch.dtype) -> None:
    value, shapes, starts, locations, query = key_aware_inputs(CASES[0], torch.float32, "cuda")
    arguments = [value.to(half), shapes, starts, locations, query.to(half)]
    compare(arguments, TOLERANCE[half])
    grad_output = torch.ones(2, 30, 256, dtype=half, device="cuda")
    assert key_aware_gradients(arguments, grad_output)[1].dtype == torch.float32


@pytest.mark.parametrize("levels", [4, 17])  # more than are passed with the launch
def test_levels_may_stay_on_the_cpu(levels: int) -> None:
    arguments = key_aware_inputs(Case("deep", ((3, 2),) * levels), torch.float32, "cuda")
    on_device = ops.key_aware_attention(*arguments)
    on_cpu = ops.key_aware_attention(arguments[0], arguments[1].cpu(), arguments[2].cpu(), *arguments[3:])
    torch.testing.assert_close(on_cpu, on_device, rtol=0, atol=0)


def test_inputs_need_not_be_contiguous_or_aligned() -> None:
    arguments = key_aware_inputs(CASES[0], torch.float32, "cuda")
    expected = ops.key_aware_attention(*arguments)
    shifted = [torch.cat([t.flatten()[:1], t.flatten()])[1:].view(t.shape) for t in arguments]
    torch.testing.assert_close(ops.key_aware_attention(*shifted), expected)
    strided = [t.transpose(0, 1).contiguous().transpose(0, 1) if t.dim() > 1 else t for t in arguments]
    torch.testing.assert_close(ops.key_aware_attention(*strided), expected, rtol=0, atol=0)


@pytest.mark.parametrize("far", [2.0, 1e4, 1e30, -1e30, math.inf, -math.inf, math.nan])
def test_points_outside_have_key_and_value_zero(far: float) -> None:
    arguments = key_aware_inputs(CASES[0], torch.float32, "cuda")
    arguments[3][..., 1, 0] = far
    compare(arguments, TOLERANCE[torch.float32])
    grad_output = torch.ones(2, 30, 256, device="cuda")
    assert not key_aware_gradients(arguments, grad_output)[1][:, :, :, :, 1].any()


def test_nothing_waits_for_the_device() -> None:
    arguments = [t.requires_grad_(t.is_floating_point()) for t in key_aware_inputs(CASES[0], torch.float32, "cuda")]
    ops.key_aware_attention(*arguments)  # compiled from here on
    torch.cuda.set_sync_debug_mode("error")
    try:
        ops.key_aware_attention(*arguments)[0].sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_runs_in_a_cuda_graph() -> None:
    arguments = key_aware_inputs(CASES[0], torch.float32, "cuda")
    expected, _ = ops.key_aware_attention(*arguments)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output, _ = ops.key_aware_attention(*arguments)
    output.zero_()
    graph.replay()
    assert torch.equal(output, expected)


def test_gradcheck_opcheck_and_compile() -> None:
    tiny = Case("tiny", ((4, 3), (2, 2)), queries=3, depth=3, points=2)
    arguments = [t.requires_grad_(t.is_floating_point()) for t in key_aware_inputs(tiny, torch.float64, "cuda")]
    assert torch.autograd.gradcheck(lambda *a: ops.key_aware_attention(*a)[0], arguments, nondet_tol=1e-12)
    torch.library.opcheck(torch.ops.detrbench.key_aware_attention.default, arguments, atol=1e-9, rtol=1e-9)
    compiled = torch.compile(lambda *a: ops.key_aware_attention(*a)[0].tanh(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments), ops.key_aware_attention(*arguments)[0].tanh())
