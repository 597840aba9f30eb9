"""Key-aware deformable attention: the kernels against the reference, and the corners of what it is defined on."""

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
    key_aware_gradients,
    key_aware_inputs,
    leaves_of,
    level_tensors,
    true_key_aware,
    true_key_aware_gradients,
)
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from detrbench.models import ops
from detrbench.models.ops import build, registration

KEY_AWARE = torch.ops.detrbench.key_aware_attention.default
KEY_AWARE_BACKWARD = torch.ops.detrbench.key_aware_attention_backward.default


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_output_and_weights_are_the_references(case: Case, dtype: torch.dtype) -> None:
    arguments = key_aware_inputs(case, dtype)
    output, weights = ops.key_aware_attention(*arguments)
    assert output.dtype == dtype
    assert weights.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    for found, truth in zip((output, weights), true_key_aware(arguments), strict=True):
        assert_close(found, truth, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_gradients_are_the_references(case: Case, dtype: torch.dtype) -> None:
    arguments = key_aware_inputs(case, dtype)
    grad_output = torch.randn(case.images, case.queries, case.heads * case.depth, dtype=torch.float64).to(dtype)
    found = key_aware_gradients(arguments, grad_output)
    for gradient, truth in zip(found, true_key_aware_gradients(grad_output, arguments), strict=True):
        assert gradient.dtype == dtype
        assert_close(gradient, truth, TOLERANCE[dtype])


def test_is_dense_attention_where_every_pixel_is_sampled() -> None:
    shapes, starts = level_tensors(((2, 3),))
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(2, 6, 4, 16, generator=generator, dtype=torch.float64)
    query = torch.randn(2, 5, 4, 16, generator=generator, dtype=torch.float64)
    centres = torch.tensor([[(x + 0.5) / 3, (y + 0.5) / 2] for y in range(2) for x in range(3)], dtype=torch.float64)
    output, weights = ops.key_aware_attention(value, shapes, starts, centres.expand(2, 5, 4, 1, 6, 2), query)
    heads = [t.transpose(1, 2) for t in (query, value, value)]
    dense = torch.nn.functional.scaled_dot_product_attention(*heads)
    torch.testing.assert_close(output, dense.transpose(1, 2).flatten(2))
    torch.testing.assert_close(weights.sum((-1, -2)), torch.ones(2, 5, 4, dtype=torch.float64))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("far", [2.0, -7.5, 1e30, -1e30, math.inf, -math.inf, math.nan])
def test_points_outside_have_key_and_value_zero(dtype: torch.dtype, far: float) -> None:
    arguments = key_aware_inputs(CASES[0], dtype)
    locations, query = arguments[3:]
    limits = torch.finfo(dtype)
    locations[:, ::2, ..., 1, 0] = min(max(far, limits.min), limits.max) if math.isfinite(far) else far
    output, weights = ops.key_aware_attention(*arguments)
    grad_locations = key_aware_gradients(arguments, torch.ones_like(output))[1]
    assert not grad_locations[:, ::2, :, :, 1].any()
    locations[:, ::2, ..., 1, :] = -1.0  # plainly outside
    for found, truth in zip((output, weights), true_key_aware(arguments), strict=True):
        assert_close(found, truth, TOLERANCE[dtype])
    # A logit of 0 beside those of the other points, not -inf: the share is that of e^0.
    locations[...] = -1.0
    output, weights = ops.key_aware_attention(*arguments)
    assert not output.any()
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 16))
    assert query.isfinite().all()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("repeat", [1, 500])  # gathered from the caller's values, and from a copy
def test_corners_outside_hide_infinity(dtype: torch.dtype, bad: float, repeat: int) -> None:
    shapes, starts = level_tensors(((4, 4),))
    value = torch.full((1, 16, 1, 16), bad, dtype=dtype)
    value[0, 4] = value[0, 8] = 8.0  # pixels (1, 0) and (2, 0)
    # Half of the point lies left of the level, where in memory the row above ends.
    locations = torch.tensor([0.0, 0.375], dtype=dtype).expand(1, repeat, 1, 1, 1, 2)
    output, weights = ops.key_aware_attention(value, shapes, starts, locations, value.new_ones(1, repeat, 1, 16))
    torch.testing.assert_close(output, torch.full_like(output, 4.0))
    assert weights.eq(1).all()


def test_what_is_not_a_number_spreads_through_the_softmax() -> None:
    shapes, starts = level_tensors(((1, 3),))
    value = torch.ones(1, 3, 1, 16)
    value[0, 2] = math.nan
    near, bad = [1 / 6, 0.5], [5 / 6, 0.5]
    locations = torch.tensor([[near, near], [near, bad]]).view(1, 2, 1, 1, 2, 2)
    output, weights = ops.key_aware_attention(value, shapes, starts, locations, torch.ones(1, 2, 1, 16))
    assert output[0, 0].eq(1).all()
    assert output[0, 1].isnan().all()
    assert weights[0, 1].isnan().all()


@pytest.mark.parametrize("size", [1e3, 1e18])
def test_large_logits_do_not_overflow(size: float) -> None:
    arguments = key_aware_inputs(CASES[0], torch.float32)
    arguments[4] *= size
    output, weights = ops.key_aware_attention(*arguments)
    assert output.isfinite().all()
    torch.testing.assert_close(weights.sum((-1, -2)), torch.ones_like(weights[..., 0, 0]))
    assert_close(weights, true_key_aware(arguments)[1], 1e-3)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_inputs_need_not_be_contiguous(dtype: torch.dtype) -> None:
    arguments = key_aware_inputs(CASES[0], dtype)
    strided = [
        tensor.transpose(0, 1).contiguous().transpose(0, 1) if tensor.dim() > 1 else tensor.repeat_interleave(2)[::2]
        for tensor in arguments
    ]
    assert not any(tensor.is_contiguous() for tensor in strided)
    expected = ops.key_aware_attention(*arguments)
    torch.testing.assert_close(ops.key_aware_attention(*strided), expected, rtol=0, atol=0)
    grad_output = torch.ones((), dtype=dtype).expand_as(expected[0])
    for found, truth in zip(
        key_aware_gradients(strided, grad_output), key_aware_gradients(arguments, grad_output), strict=True
    ):
        assert_close(found, truth.double(), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_inputs_may_start_anywhere(dtype: torch.dtype) -> None:
    arguments = key_aware_inputs(CASES[0], dtype)
    shifted = [torch.cat([tensor.flatten()[:1], tensor.flatten()])[1:].view(tensor.shape) for tensor in arguments]
    assert all(tensor.data_ptr() % 16 for tensor in shifted)
    expected = ops.key_aware_attention(*arguments)[0]
    assert_close(ops.key_aware_attention(*shifted)[0], expected.double(), TOLERANCE[dtype])
    torch.autograd.backward(
        ops.key_aware_attention(*[tensor.requires_grad_(tensor.is_floating_point()) for tensor in shifted])[0], expected
    )
    truths = key_aware_gradients(arguments, expected)
    leaves = [tensor for tensor in shifted if tensor.requires_grad]
    for leaf, truth in zip(leaves, truths, strict=True):
        assert leaf.grad is not None
        assert_close(leaf.grad, truth.double(), TOLERANCE[dtype])


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_gradients_are_the_same_bits_where_that_is_asked_for(case: Case, dtype: torch.dtype) -> None:
    arguments = key_aware_inputs(case, dtype)
    grad_output = torch.randn(case.images, case.queries, case.heads * case.depth, dtype=torch.float64).to(dtype)
    once, again = key_aware_gradients(arguments, grad_output), key_aware_gradients(arguments, grad_output)
    assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))
    for gradient, truth in zip(once, true_key_aware_gradients(grad_output, arguments), strict=True):
        assert_close(gradient, truth, 2 * TOLERANCE[dtype])


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("count", [2, 3, 40])
@pytest.mark.parametrize("case", CASES[:3], ids=IDS[:3])
def test_bits_do_not_depend_on_the_number_of_threads(case: Case, count: int) -> None:
    arguments = key_aware_inputs(case, torch.float32)
    grad_output = torch.randn(case.images, case.queries, case.heads * case.depth)
    found = []
    for number in (1, count):
        torch.set_num_threads(number)
        found.append([*ops.key_aware_attention(*arguments), *key_aware_gradients(arguments, grad_output)])
    assert all(torch.equal(one, many) for one, many in zip(*found, strict=True))


ERRORS = [
    ("value", lambda t: t[0], ValueError, r"value must be \(N, S, M, D\)"),
    ("value", lambda t: t.float(), TypeError, "sampling_locations is torch.float64"),
    ("shapes", lambda t: t + 1, ValueError, r"level_start_index\[1\] is 108"),
    ("locations", lambda t: t[:, :, :, :0], ValueError, "there must be at least one level"),
    ("query", lambda t: t[..., :1], ValueError, r"query must be \(2, 30, 8, 32\), got \(2, 30, 8, 1\)"),
    ("query", lambda t: t[:, :, :1], ValueError, r"query must be \(2, 30, 8, 32\)"),
    ("query", lambda t: t.float(), TypeError, "query is torch.float32, value torch.float64"),
    ("query", lambda t: t.bool(), TypeError, "query is torch.bool"),
    ("query", lambda t: t.to("meta"), ValueError, "query is on meta, value on cpu"),
]


@pytest.mark.parametrize(("name", "spoil", "error", "message"), ERRORS)
def test_errors_say_what_does_not_fit(
    name: str, spoil: Callable[[Tensor], Tensor], error: type[Exception], message: str
) -> None:
    names = ("value", "shapes", "starts", "locations", "query")
    arguments = dict(zip(names, key_aware_inputs(CASES[0]), strict=True))
    arguments[name] = spoil(arguments[name])
    with pytest.raises(error, match=message):
        ops.key_aware_attention(*arguments.values())
    if all(tensor.is_cpu for tensor in arguments.values()):  # the kernel itself keeps inside its memory as well
        with pytest.raises((ValueError, TypeError, RuntimeError)):
            KEY_AWARE(*arguments.values())


# --- as PyTorch's machinery sees it -------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [TINY, Case("many", ((4, 3), (2, 2)), queries=9, heads=1, depth=1, points=1)])
def test_gradients_are_those_of_the_output(case: Case) -> None:
    arguments = leaves_of(key_aware_inputs(case))
    assert torch.autograd.gradcheck(lambda *given: ops.key_aware_attention(*given)[0], arguments, nondet_tol=1e-12)


def test_opcheck() -> None:
    torch.library.opcheck(KEY_AWARE, leaves_of(key_aware_inputs(TINY)))
    arguments = key_aware_inputs(TINY)
    output, weights = ops.key_aware_attention(*arguments)
    torch.library.opcheck(KEY_AWARE_BACKWARD, [torch.ones_like(output), *arguments, weights])


def test_weights_are_not_differentiable() -> None:
    output, weights = ops.key_aware_attention(*leaves_of(key_aware_inputs(TINY)))
    assert output.requires_grad
    assert not weights.requires_grad


def test_there_is_no_second_gradient() -> None:
    arguments = leaves_of(key_aware_inputs(TINY))
    total = ops.key_aware_attention(*arguments)[0].pow(2).sum()
    (gradient,) = torch.autograd.grad(total, arguments[0], create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivative"):
        gradient.sum().backward()


@pytest.mark.parametrize("dynamic", [pytest.param(False, marks=pytest.mark.full), True])
def test_compiles_without_a_break(dynamic: bool) -> None:
    def twice(*arguments: Tensor) -> Tensor:
        output, weights = ops.key_aware_attention(*arguments)
        return output.tanh() * 2 + weights.sum()

    compiled = torch.compile(twice, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for case in (TINY, CASES[0]):
        ours, theirs = leaves_of(key_aware_inputs(case)), leaves_of(key_aware_inputs(case))
        torch.testing.assert_close(compiled(*ours), twice(*theirs))
        compiled(*ours).sum().backward()
        twice(*theirs).sum().backward()
        torch.testing.assert_close(ours[4].grad, theirs[4].grad)


def test_works_on_the_meta_device() -> None:
    arguments = leaves_of(key_aware_inputs(CASES[0], torch.bfloat16, "meta"))
    output, weights = ops.key_aware_attention(*arguments)
    assert (output.dtype, output.shape) == (torch.bfloat16, (2, 30, 8 * 32))
    assert (weights.dtype, weights.shape) == (torch.float32, (2, 30, 8, 4, 4))
    output.sum().backward()
    assert arguments[4].grad is not None
    assert arguments[4].grad.shape == arguments[4].shape


def test_autocast_narrows_value_and_query() -> None:
    value, shapes, starts, locations, query = leaves_of(key_aware_inputs(CASES[0], torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        output, weights = ops.key_aware_attention(value, shapes, starts, locations, query)
        exact = ops.key_aware_attention(*key_aware_inputs(CASES[0]))[0]
    assert (output.dtype, weights.dtype, exact.dtype) == (torch.bfloat16, torch.float32, torch.float64)
    narrow = ops.key_aware_attention(value.bfloat16(), shapes, starts, locations, query.bfloat16())
    torch.testing.assert_close((output, weights), narrow)
    output.sum().backward()
    assert all(t.grad is not None and t.grad.dtype == torch.float32 for t in (value, locations, query))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_flops_are_counted(device: str) -> None:
    case = CASES[0]
    arguments = leaves_of(key_aware_inputs(case, torch.float32, device))
    with FlopCounterMode(display=False) as counter:
        ops.key_aware_attention(*arguments)[0].sum().backward()
    channels = case.images * case.queries * case.heads * len(case.levels) * case.points * case.depth
    assert counter.get_flop_counts()["Global"] == {
        torch.ops.detrbench.key_aware_attention: 2 * 6 * channels,  # four corners, logit, weight
        torch.ops.detrbench.key_aware_attention_backward: 4 * 6 * channels,
    }


def test_without_kernels_the_reference_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels are loaded in this process, so the first kernel is called by itself."""
    monkeypatch.setattr(build, "native_kernels", lambda device: False)
    arguments = key_aware_inputs(CASES[0])
    output, weights = registration._key_aware(*arguments)
    torch.testing.assert_close((output, weights), ops.key_aware_attention(*arguments))
    grad_output = torch.randn_like(output)
    found = registration._key_aware_backward(grad_output, *arguments, weights)
    torch.testing.assert_close(found, key_aware_gradients(arguments, grad_output))
