"""Attention from offsets and logits: the fused kernels against locations and weights that are made first."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from op_cases import (
    CASES,
    IDS,
    TINY,
    TOLERANCE,
    TYPES,
    Case,
    assert_close,
    exactly,
    from_offsets_gradients,
    from_offsets_inputs,
    leaves_of,
    true_from_offsets_gradients,
    unfused,
)
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from detrbench.models import ops
from detrbench.models.ops import build, registration

FROM_OFFSETS = torch.ops.detrbench.msda_from_offsets.default
FROM_OFFSETS_BACKWARD = torch.ops.detrbench.msda_from_offsets_backward.default


@pytest.mark.parametrize("coordinates", [2, 4])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_output_and_gradients_are_the_references(case: Case, dtype: torch.dtype, coordinates: int) -> None:
    arguments = from_offsets_inputs(case, dtype, coordinates=coordinates)
    output = ops.msda_from_offsets(*arguments)
    assert output.dtype == dtype
    assert_close(output, unfused(exactly(arguments)), TOLERANCE[dtype])
    grad_output = torch.randn(case.images, case.queries, case.heads * case.depth, dtype=torch.float64).to(dtype)
    found = from_offsets_gradients(arguments, grad_output)
    for gradient, truth in zip(found, true_from_offsets_gradients(grad_output, arguments), strict=True):
        assert gradient.dtype == dtype
        assert_close(gradient, truth, 4 * TOLERANCE[dtype])


@pytest.mark.parametrize("coordinates", [2, 4])
def test_in_float32_it_is_the_unfused_operation_to_rounding(coordinates: int) -> None:
    arguments = from_offsets_inputs(CASES[0], torch.float32, coordinates=coordinates)
    assert_close(ops.msda_from_offsets(*arguments), unfused(arguments, ops.msda).double(), 1e-6)
    grad_output = torch.randn(2, 30, 256)
    leaves = leaves_of(arguments)
    expected = torch.autograd.grad(unfused(leaves, ops.msda), [leaves[0], *leaves[3:]], grad_output)
    for found, truth in zip(from_offsets_gradients(arguments, grad_output), expected, strict=True):
        assert_close(found, truth.double(), 2e-6)


def test_a_half_value_takes_float32_points() -> None:
    arguments = from_offsets_inputs(CASES[0], torch.float32, coordinates=4)
    arguments[0] = arguments[0].bfloat16()
    output = ops.msda_from_offsets(*arguments)
    assert output.dtype == torch.bfloat16
    assert_close(output, unfused(exactly(arguments)), TOLERANCE[torch.bfloat16])
    value, *points = from_offsets_gradients(arguments, torch.ones_like(output))
    assert value.dtype == torch.bfloat16
    assert {gradient.dtype for gradient in points} == {torch.float32}
    truths = true_from_offsets_gradients(torch.ones_like(output), arguments)[1:]
    for gradient, truth in zip(points, truths, strict=True):
        assert_close(gradient, truth, 2e-5)


def test_a_large_logit_takes_all_and_an_infinite_offset_nothing() -> None:
    arguments = from_offsets_inputs(CASES[0], torch.float32)
    arguments[4][:, :, :, 1, 2] = 500.0
    alone = [*arguments[:4], torch.full_like(arguments[4], -math.inf), arguments[5]]
    alone[4][:, :, :, 1, 2] = 0
    torch.testing.assert_close(ops.msda_from_offsets(*arguments), ops.msda_from_offsets(*alone))
    arguments[3][:, :, :, 1, 2] = math.inf
    assert_close(ops.msda_from_offsets(*arguments), torch.zeros(2, 30, 256, dtype=torch.float64), 1e-6)
    assert not from_offsets_gradients(arguments, torch.ones(2, 30, 256))[1][:, :, :, 1, 2].any()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_inputs_need_not_be_contiguous(dtype: torch.dtype) -> None:
    arguments = from_offsets_inputs(CASES[0], dtype, coordinates=4)
    strided = [
        tensor.transpose(0, 1).contiguous().transpose(0, 1) if tensor.dim() > 1 else tensor.repeat_interleave(2)[::2]
        for tensor in arguments
    ]
    expected = ops.msda_from_offsets(*arguments)
    torch.testing.assert_close(ops.msda_from_offsets(*strided), expected, rtol=0, atol=0)
    pairs = zip(from_offsets_gradients(strided, expected), from_offsets_gradients(arguments, expected), strict=True)
    for found, truth in pairs:
        assert_close(found, truth.double(), TOLERANCE[dtype])


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("count", [2, 40])
def test_bits_do_not_depend_on_the_number_of_threads(count: int) -> None:
    arguments = from_offsets_inputs(CASES[0], torch.float32, coordinates=4)
    grad_output = torch.randn(2, 30, 256)
    found = []
    for number in (1, count):
        torch.set_num_threads(number)
        found.append([ops.msda_from_offsets(*arguments), *from_offsets_gradients(arguments, grad_output)])
    assert all(torch.equal(one, many) for one, many in zip(*found, strict=True))


@pytest.mark.parametrize("coordinates", [2, 4])
def test_gradients_are_those_of_the_output(coordinates: int) -> None:
    arguments = leaves_of(from_offsets_inputs(TINY, coordinates=coordinates))
    assert torch.autograd.gradcheck(ops.msda_from_offsets, arguments, nondet_tol=1e-12)


@pytest.mark.parametrize("coordinates", [2, 4])
def test_opcheck(coordinates: int) -> None:
    arguments = from_offsets_inputs(TINY, coordinates=coordinates)
    torch.library.opcheck(FROM_OFFSETS, leaves_of(arguments))
    torch.library.opcheck(FROM_OFFSETS_BACKWARD, [torch.ones_like(ops.msda_from_offsets(*arguments)), *arguments])


@pytest.mark.parametrize("coordinates", [2, 4])
def test_without_compiled_kernels_the_reference_runs(monkeypatch: pytest.MonkeyPatch, coordinates: int) -> None:
    arguments = from_offsets_inputs(CASES[0], coordinates=coordinates)
    output = ops.msda_from_offsets(*arguments)
    monkeypatch.setitem(build._kernels, "cpu", build.Kernels("reference", why="a test", install="nothing"))
    torch.testing.assert_close(registration._msda_from_offsets(*arguments), output)
    found = registration._msda_from_offsets_backward(output, *arguments)
    truths = true_from_offsets_gradients(output, arguments)
    torch.testing.assert_close(found, truths)


def test_compiles_without_a_break() -> None:
    def twice(*arguments: Tensor) -> Tensor:
        return ops.msda_from_offsets(*arguments).tanh() * 2

    compiled = torch.compile(twice, fullgraph=True, backend="aot_eager")
    ours, theirs = (leaves_of(from_offsets_inputs(CASES[0])) for _ in range(2))
    torch.testing.assert_close(compiled(*ours), twice(*theirs))
    compiled(*ours).sum().backward()
    twice(*theirs).sum().backward()
    torch.testing.assert_close(ours[3].grad, theirs[3].grad)


def test_autocast_narrows_the_value_only() -> None:
    arguments = leaves_of(from_offsets_inputs(CASES[0], torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        output = ops.msda_from_offsets(*arguments)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output, ops.msda_from_offsets(arguments[0].bfloat16(), *arguments[1:]))
    output.sum().backward()
    assert {leaf.grad.dtype for leaf in arguments if leaf.grad is not None} == {torch.float32}


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_flops_are_those_of_the_attention_alone(device: str) -> None:
    arguments = leaves_of(from_offsets_inputs(CASES[0], torch.float32, device))
    with FlopCounterMode(display=False) as counter:
        ops.msda_from_offsets(*arguments).sum().backward()
    macs = ops.msda_macs(arguments[0].shape, arguments[3].shape)
    assert counter.get_flop_counts()["Global"] == {
        torch.ops.detrbench.msda_from_offsets: 2 * macs,
        torch.ops.detrbench.msda_from_offsets_backward: 4 * macs,
    }


ERRORS = [
    ("value", lambda t: t[0], ValueError, r"value must be \(N, S, M, D\)"),
    ("value", lambda t: t[:, :-1], ValueError, "spatial_shapes hold"),
    ("shapes", lambda t: t + 1, ValueError, r"level_start_index\[1\] is 108"),
    ("starts", lambda t: t.int(), TypeError, "level_start_index must be int64"),
    ("offsets", lambda t: t[..., :1], ValueError, r"offsets must be \(N, Q, M, L, P, 2\)"),
    ("offsets", lambda t: t.long(), TypeError, "offsets is torch.int64"),
    ("logits", lambda t: t[..., :1], ValueError, r"logits must be \(2, 30, 8, 4, 4\)"),
    ("logits", lambda t: t.tolist(), TypeError, "logits must be a dense tensor, got list"),
    ("references", lambda t: t[..., :1], ValueError, r"reference_points must be \(2, 30, 4, 2 or 4\), got"),
    ("references", lambda t: t[:, 1:], ValueError, r"reference_points must be \(2, 30, 4, 2 or 4\), got"),
    ("references", lambda t: t.bool(), TypeError, "reference_points is torch.bool"),
]


@pytest.mark.parametrize(("name", "spoil", "error", "message"), ERRORS)
def test_errors_say_what_does_not_fit(
    name: str, spoil: Callable[[Tensor], object], error: type[Exception], message: str
) -> None:
    names = ("value", "shapes", "starts", "offsets", "logits", "references")
    arguments: dict[str, object] = dict(zip(names, from_offsets_inputs(CASES[0]), strict=True))
    arguments[name] = spoil(arguments[name])  # type: ignore[arg-type]
    with pytest.raises(error, match=message):
        ops.msda_from_offsets(*arguments.values())  # type: ignore[arg-type]
    with pytest.raises((ValueError, TypeError, RuntimeError)):  # the kernel itself keeps inside its memory as well
        torch.ops.detrbench.msda_from_offsets(*arguments.values())
