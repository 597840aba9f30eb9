"""The sampled operation on a CUDA device: against the reference in float64, and as PyTorch uses it there."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from op_cases import (
    CASES,
    IDS,
    TOLERANCE,
    Case,
    assert_close,
    exactly,
    from_offsets_inputs,
    gradients,
    inputs,
    leaves_of,
    off_pixels,
    true_from_offsets_gradients,
    true_gradients,
    true_output,
    unfused,
)
from torch import Tensor

from detrbench.models import ops

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
TYPES = list(TOLERANCE)


def compare(arguments: list[Tensor], tolerance: float) -> None:
    """Output and gradients against the reference."""
    output = ops.msda(*arguments)
    assert output.dtype == arguments[0].dtype
    assert_close(output, true_output(arguments), tolerance)
    grad_output = torch.randn(output.shape, device="cuda").to(output.dtype)
    for found, truth in zip(gradients(arguments, grad_output), true_gradients(grad_output, arguments), strict=True):
        assert_close(found, truth, tolerance)


def test_the_kernels_are_native() -> None:
    assert ops.status()["cuda"]["backend"] == "native", ops.status()["cuda"]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_output_and_gradients_are_the_references(case: Case, dtype: torch.dtype) -> None:
    compare(inputs(case, dtype, "cuda"), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_encoders_size(dtype: torch.dtype) -> None:
    case = Case("encoder", ((100, 152), (50, 76), (25, 38), (13, 19)), queries=20197, heads=8)
    compare(off_pixels(inputs(case, dtype, "cuda")), 4 * TOLERANCE[dtype])  # thousands of terms in no fixed order


@pytest.mark.parametrize("coordinates", [2, 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_from_offsets_is_the_reference(case: Case, dtype: torch.dtype, coordinates: int) -> None:
    given = from_offsets_inputs(case, dtype, "cuda", coordinates=coordinates)
    leaves = leaves_of(given)
    output = ops.msda_from_offsets(*leaves)
    assert_close(output, unfused(exactly(given)), TOLERANCE[dtype])
    grad_output = torch.randn(output.shape, device="cuda").to(output.dtype)
    found = torch.autograd.grad(output, [leaves[0], *leaves[3:]], grad_output, materialize_grads=True)
    for gradient, truth in zip(found, true_from_offsets_gradients(grad_output, given), strict=True):
        assert_close(gradient, truth, 10 * TOLERANCE[dtype])


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_are_the_same_bits_where_that_is_asked(dtype: torch.dtype) -> None:
    case = Case("crowded", ((20, 30), (10, 15)), images=2, queries=3000, heads=8)
    arguments = inputs(case, dtype, "cuda")
    grad_output = torch.randn(2, 3000, 256, device="cuda").to(dtype)
    first = gradients(arguments, grad_output)
    for found, truth in zip(first, true_gradients(grad_output, arguments), strict=True):
        assert_close(found, truth, 4 * TOLERANCE[dtype])
    for _ in range(5):
        assert all(torch.equal(a, b) for a, b in zip(first, gradients(arguments, grad_output), strict=True))


def test_two_streams_do_not_meet() -> None:
    each = [
        inputs(Case("encoder", ((50, 76), (25, 38)), queries=4750, heads=8), torch.float32, "cuda", seed)
        for seed in (0, 1)
    ]
    expected = [ops.msda(*arguments) for arguments in each]
    torch.cuda.synchronize()
    streams, found = [torch.cuda.Stream() for _ in each], []
    for _ in range(10):
        for stream, arguments in zip(streams, each):
            with torch.cuda.stream(stream):
                found.append(ops.msda(*arguments))
    torch.cuda.synchronize()
    assert all(torch.equal(output, expected[n % 2]) for n, output in enumerate(found))


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
def test_a_half_value_takes_float32_locations_and_weights(half: torch.dtype) -> None:
    arguments = inputs(CASES[0], torch.float32, "cuda")
    arguments[0] = arguments[0].to(half)
    compare(arguments, TOLERANCE[half])
    locations = gradients(arguments, torch.ones_like(ops.msda(*arguments)))[1]
    assert locations.dtype == torch.float32


@pytest.mark.parametrize("levels", [4, 17])  # more than are passed with the launch
def test_levels_may_stay_on_the_cpu(levels: int) -> None:
    arguments = inputs(Case("deep", ((3, 2),) * levels), torch.float32, "cuda")
    on_device = ops.msda(*arguments)
    assert torch.equal(ops.msda(arguments[0], arguments[1].cpu(), arguments[2].cpu(), *arguments[3:]), on_device)
    with pytest.raises(ValueError, match="spatial_shapes hold"):
        ops.msda(arguments[0], arguments[1].cpu() + 1, arguments[2].cpu(), *arguments[3:])


def test_inputs_need_not_be_contiguous_or_aligned() -> None:
    arguments = inputs(CASES[0], torch.float32, "cuda")
    shifted = [torch.cat([t.flatten()[:1], t.flatten()])[1:].view(t.shape) for t in arguments]
    torch.testing.assert_close(ops.msda(*shifted), ops.msda(*arguments))
    strided = [t.transpose(0, 1).contiguous().transpose(0, 1) if t.dim() > 1 else t for t in arguments]
    assert torch.equal(ops.msda(*strided), ops.msda(*arguments))


@pytest.mark.parametrize("far", [2.0, 1e4, 1e30, -1e30, math.inf, -math.inf, math.nan])
def test_points_outside_contribute_nothing(far: float) -> None:
    arguments = inputs(CASES[0], torch.float32, "cuda")
    arguments[3][..., 1, 0] = far
    arguments[4][..., 1] = math.nan
    silent = [t.clone() for t in arguments]
    silent[3][..., 1, 0], silent[4][..., 1] = 0.5, 0.0
    assert_close(ops.msda(*arguments), true_output(silent), TOLERANCE[torch.float32])
    grad_output = torch.ones_like(ops.msda(*arguments))
    _, locations, weights = gradients(arguments, grad_output)
    assert not locations[:, :, :, :, 1].any()
    assert not weights[:, :, :, :, 1].any()


def test_corners_outside_hide_infinity() -> None:
    value = torch.full((1, 16, 1, 32), math.inf, device="cuda")
    value[0, 4] = value[0, 8] = 8.0  # pixels (1, 0) and (2, 0) of a 4 x 4 level
    location = torch.tensor([0.0, 0.375], device="cuda").view(1, 1, 1, 1, 1, 2)  # x = -0.5, y = 1
    levels = torch.tensor([[4, 4]], device="cuda"), torch.tensor([0], device="cuda")
    assert ops.msda(value, *levels, location, torch.ones_like(location[..., 0])).eq(4).all()


@pytest.fixture
def arguments_on_device() -> Iterator[list[Tensor]]:
    arguments = [t.requires_grad_(t.is_floating_point()) for t in inputs(CASES[0], torch.float32, "cuda")]
    ops.msda(*arguments)  # compiled from here on
    torch.cuda.set_sync_debug_mode("error")
    yield arguments
    torch.cuda.set_sync_debug_mode("default")


def test_nothing_waits_for_the_device(arguments_on_device: list[Tensor]) -> None:
    ops.msda(*arguments_on_device).sum().backward()


def test_runs_in_a_cuda_graph() -> None:
    arguments = inputs(CASES[0], torch.float32, "cuda")
    expected = ops.msda(*arguments)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = ops.msda(*arguments)
    output.zero_()
    graph.replay()
    assert torch.equal(output, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_narrows_the_value_only(dtype: torch.dtype) -> None:
    arguments = [t.requires_grad_(t.is_floating_point()) for t in inputs(CASES[0], torch.float32, "cuda")]
    with torch.autocast("cuda", dtype):
        output = ops.msda(*arguments)
    assert output.dtype == dtype
    output.sum().backward()
    assert arguments[0].grad is not None
    assert arguments[0].grad.dtype == torch.float32


def test_gradcheck_and_opcheck() -> None:
    tiny = Case("tiny", ((4, 3), (2, 2)), queries=3, depth=3, points=2)
    arguments = [t.requires_grad_(t.is_floating_point()) for t in inputs(tiny, torch.float64, "cuda")]
    assert torch.autograd.gradcheck(ops.msda, arguments, nondet_tol=1e-12)
    torch.library.opcheck(torch.ops.detrbench.msda.default, arguments, atol=1e-9, rtol=1e-9)


def test_compiles_without_a_break() -> None:
    arguments = inputs(CASES[0], torch.float32, "cuda")
    compiled = torch.compile(lambda *a: ops.msda(*a).tanh(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments), ops.msda(*arguments).tanh())


def test_wrong_levels_on_the_device_stop_the_program() -> None:
    program = """
import torch
from detrbench.models import ops
cuda = dict(device="cuda")
shapes, starts = torch.tensor([[2, 9]], **cuda), torch.tensor([0], **cuda)
points = torch.full((1, 2, 1, 1, 1, 2), 0.9, **cuda)
ops.msda(torch.ones(1, 6, 1, 4, **cuda), shapes, starts, points, torch.ones(1, 2, 1, 1, 1, **cuda)).sum().item()
"""
    found = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True, check=False)
    assert found.returncode != 0
    assert "device-side assert" in found.stderr
