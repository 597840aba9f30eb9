"""Multi-scale deformable attention: the kernels against the reference, and the corners of what it is defined on."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from op_cases import CASES, IDS, TOLERANCE, TYPES, Case, assert_close, gradients, inputs, level_tensors, true_gradients
from op_cases import true_output as true
from torch import Tensor

from detrbench.models import ops
from detrbench.models.ops.reference import grid_sample_msda, msda_reference


def one_point(level: tuple[int, int], x: float, y: float, values: Tensor, repeat: int = 1) -> Tensor:
    """Sample pixel coordinates (x, y) of one level of `values` (height * width,), `repeat` queries."""
    shapes, starts = level_tensors((level,))
    location = torch.tensor([(x + 0.5) / level[1], (y + 0.5) / level[0]], dtype=values.dtype)
    value = values.view(1, -1, 1, 1).expand(-1, -1, -1, 16)
    locations = location.expand(1, repeat, 1, 1, 1, 2)
    return ops.msda(value, shapes, starts, locations, locations.new_ones(1, repeat, 1, 1, 1))[0]


def test_the_kernels_are_native() -> None:
    assert ops.status()["cpu"]["backend"] == "native", ops.status()["cpu"]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_output_is_the_references(case: Case, dtype: torch.dtype) -> None:
    arguments = inputs(case, dtype)
    output = ops.msda(*arguments)
    assert output.dtype == dtype
    assert_close(output, true(arguments), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_gradients_are_the_references(case: Case, dtype: torch.dtype) -> None:
    arguments = inputs(case, dtype)
    grad_output = torch.randn(case.images, case.queries, case.heads * case.depth, dtype=torch.float64).to(dtype)
    found = gradients(arguments, grad_output)
    for gradient, truth in zip(found, true_gradients(grad_output, arguments), strict=True):
        assert gradient.dtype == dtype
        assert_close(gradient, truth, TOLERANCE[dtype])


def test_a_half_value_takes_float32_locations_and_weights() -> None:
    arguments = inputs(CASES[0], torch.float32)
    arguments[0] = arguments[0].bfloat16()
    output = ops.msda(*arguments)
    assert output.dtype == torch.bfloat16
    assert_close(output, true(arguments), TOLERANCE[torch.bfloat16])
    value, locations, weights = gradients(arguments, torch.ones_like(output))
    assert (value.dtype, locations.dtype, weights.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    assert_close(locations, true_gradients(torch.ones_like(output), arguments)[1], 5e-6)


def test_the_reference_is_the_common_formulation() -> None:
    value, shapes, starts, locations, weights = inputs(CASES[0])
    common = grid_sample_msda(value, shapes.tolist(), locations, weights)
    torch.testing.assert_close(msda_reference(value, shapes, starts, locations, weights), common)


def test_the_reference_is_the_papers_sum() -> None:
    value, shapes, starts, locations, weights = inputs(Case("tiny", ((3, 4), (2, 2)), queries=3, depth=2))
    expected = torch.zeros(3, 2, 2, dtype=torch.float64)
    for query, head, level, point in torch.cartesian_prod(*map(torch.arange, locations.shape[1:5])).tolist():
        height, width = shapes[level].tolist()
        x = float(locations[0, query, head, level, point, 0]) * width - 0.5
        y = float(locations[0, query, head, level, point, 1]) * height - 0.5
        for row in range(height):
            for column in range(width):
                share = max(0.0, 1 - abs(x - column)) * max(0.0, 1 - abs(y - row))
                token = int(starts[level]) + row * width + column
                expected[query, head] += share * weights[0, query, head, level, point] * value[0, token, head]
    torch.testing.assert_close(msda_reference(value, shapes, starts, locations, weights)[0].view(3, 2, 2), expected)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_inputs_need_not_be_contiguous(dtype: torch.dtype) -> None:
    arguments = inputs(CASES[0], dtype)
    strided = [
        tensor.transpose(0, 1).contiguous().transpose(0, 1) if tensor.dim() > 1 else tensor.repeat_interleave(2)[::2]
        for tensor in arguments
    ]
    assert not any(tensor.is_contiguous() for tensor in strided)
    grad_output = torch.ones((), dtype=dtype).expand_as(ops.msda(*arguments))
    torch.testing.assert_close(ops.msda(*strided), ops.msda(*arguments), rtol=0, atol=0)
    for found, expected in zip(gradients(strided, grad_output), gradients(arguments, grad_output), strict=True):
        assert_close(found, expected.double(), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_inputs_may_start_anywhere(dtype: torch.dtype) -> None:
    arguments = inputs(CASES[0], dtype)
    shifted = [torch.cat([tensor.flatten()[:1], tensor.flatten()])[1:].view(tensor.shape) for tensor in arguments]
    assert all(tensor.data_ptr() % 16 for tensor in shifted)
    expected = ops.msda(*arguments)
    assert_close(ops.msda(*shifted), expected.double(), TOLERANCE[dtype])
    torch.autograd.backward(
        ops.msda(*[tensor.requires_grad_(tensor.is_floating_point()) for tensor in shifted]), expected
    )
    truths = gradients(arguments, expected)
    leaves = [tensor for tensor in shifted if tensor.requires_grad]
    for leaf, truth in zip(leaves, truths, strict=True):
        assert leaf.grad is not None
        assert_close(leaf.grad, truth.double(), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(
    ("far", "axis"),
    [(2.0, 0), (-7.5, 1), (-6e4, 0), (1e30, 0), (-1e30, 1), (math.inf, 0), (-math.inf, 1), (math.nan, 0)],
)
def test_points_outside_contribute_nothing(dtype: torch.dtype, far: float, axis: int) -> None:
    arguments = inputs(CASES[0], dtype)
    value, shapes, starts, locations, weights = arguments
    limits = torch.finfo(dtype)
    locations[:, ::2, ..., 1, axis] = min(max(far, limits.min), limits.max) if math.isfinite(far) else far
    weights[:, ::2, ..., 1] = math.nan  # whatever its weight
    silent = weights.clone()
    silent[:, ::2, ..., 1] = 0
    inside = locations.nan_to_num(0.5, 0.5, 0.5).clamp(-1, 1.5)
    expected = msda_reference(value, shapes, starts, inside, silent)
    torch.testing.assert_close(ops.msda(*arguments).double(), expected.double(), rtol=0, atol=0.05)
    torch.testing.assert_close(msda_reference(*arguments), expected)
    for gradient in gradients(arguments, torch.ones_like(expected))[1:]:
        assert not gradient[:, ::2, :, :, 1].any()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("repeat", [1, 500])  # gathered from the caller's values, and from a copy
def test_corners_outside_hide_infinity(dtype: torch.dtype, bad: float, repeat: int) -> None:
    values = torch.full((4, 4), bad, dtype=dtype)
    values[1, 0] = values[2, 0] = 8.0
    # Half of the point lies left of the level, where in memory the row above ends.
    output = one_point((4, 4), -0.5, 1.0, values, repeat)
    torch.testing.assert_close(output, torch.full_like(output, 4.0))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("repeat", [1, 500])  # gathered from the caller's values, and from a copy
def test_corners_outside_hide_an_infinite_gradient(dtype: torch.dtype, repeat: int) -> None:
    shapes, starts = level_tensors(((4, 4),))
    value = torch.ones(1, 16, 1, 16, dtype=dtype)
    # Half of the point lies left of the level, and half above it.
    locations = torch.zeros(1, repeat, 1, 1, 1, 2, dtype=dtype)
    arguments = [value, shapes, starts, locations, locations.new_ones(1, repeat, 1, 1, 1)]
    grad_output = torch.full((1, repeat, 16), math.inf, dtype=dtype)
    found = gradients(arguments, grad_output)
    for gradient, truth in zip(found, true_gradients(grad_output, arguments), strict=True):
        assert torch.equal(gradient.double(), truth)
    assert found[2].eq(math.inf).all()


@pytest.mark.parametrize("queries", [2, 6])  # corners are added one by one, and merged, on a GPU
def test_an_infinite_weight_stays_in_its_head(queries: int) -> None:
    arguments = inputs(Case("", ((5, 7), (3, 4)), queries=queries, depth=3))
    arguments[3].clamp_(0.2, 0.8)
    arguments[4][:, 0, 0, 0, 0] = math.inf
    grad_value = gradients(arguments, torch.ones(1, queries, 6, dtype=torch.float64))[0]
    assert grad_value[:, :, 0].isinf().any()
    assert grad_value[:, :, 1].isfinite().all()


def test_an_empty_level_may_be_absurdly_wide() -> None:
    case = Case("absurd", ((5, 7), (0, 1 << 62), (2, 2)), points=2)
    arguments = inputs(Case("empty", ((5, 7), (0, 1), (2, 2)), points=2))
    expected = ops.msda(*arguments)
    arguments[1] = torch.tensor(case.levels)
    torch.testing.assert_close(ops.msda(*arguments), expected, rtol=0, atol=0)
    assert gradients(arguments, expected)[1].isfinite().all()


def test_what_is_not_a_number_spreads_from_where_it_is_sampled() -> None:
    values = torch.ones(3, 3)
    values[1, 1] = math.nan
    assert one_point((3, 3), 0.5, 0.5, values).isnan().all()
    assert one_point((3, 3), 0.0, 2.0, values).eq(1).all()


@pytest.mark.parametrize(("x", "y", "expected"), [(0, 0, 0.0), (2, 1, 6.0), (3, 2, 11.0), (0.5, 0, 0.5), (3.5, 2, 5.5)])
def test_pixel_coordinates(x: float, y: float, expected: float) -> None:
    values = torch.arange(12, dtype=torch.float64).view(3, 4)
    assert one_point((3, 4), x, y, values)[0, 0].item() == pytest.approx(expected)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("count", [2, 3, 40])
@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[2]], ids=IDS[:3])
def test_bits_do_not_depend_on_the_number_of_threads(case: Case, count: int) -> None:
    arguments = inputs(case, torch.float32)
    grad_output = torch.randn(case.images, case.queries, case.heads * case.depth)
    found = []
    for number in (1, count):
        torch.set_num_threads(number)
        found.append([ops.msda(*arguments), *gradients(arguments, grad_output)])
    assert all(torch.equal(one, many) for one, many in zip(*found, strict=True))


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_gradients_are_the_same_bits_where_that_is_asked_for(case: Case, dtype: torch.dtype) -> None:
    arguments = inputs(case, dtype)
    grad_output = torch.randn(case.images, case.queries, case.heads * case.depth, dtype=torch.float64).to(dtype)
    once, again = gradients(arguments, grad_output), gradients(arguments, grad_output)
    assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))
    for gradient, truth in zip(once, true_gradients(grad_output, arguments), strict=True):
        assert_close(gradient, truth, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("repeat", [1, 500])  # few reads of each row, and many
def test_a_value_that_lies_head_by_head_is_taken_as_it_is(dtype: torch.dtype, repeat: int) -> None:
    arguments = inputs(Case("", ((5, 7), (3, 4)), images=2, queries=repeat, heads=3), dtype)
    grad_output = torch.ones_like(ops.msda(*arguments))
    by_head = [arguments[0].transpose(1, 2).contiguous().transpose(1, 2), *arguments[1:]]
    torch.testing.assert_close(ops.msda(*by_head), ops.msda(*arguments), rtol=0, atol=0)
    for found, truth in zip(gradients(by_head, grad_output), gradients(arguments, grad_output), strict=True):
        assert_close(found, truth.double(), TOLERANCE[dtype])


# CASES[0] has levels of 108, 30, 9 and 2 tokens.
ERRORS = [
    ("value", lambda t: t[0], ValueError, r"value must be \(N, S, M, D\)"),
    ("value", lambda t: t.long(), TypeError, "value must be float32, float64, float16 or bfloat16, got torch.int64"),
    ("value", lambda t: t[:, :-1], ValueError, "spatial_shapes hold"),
    ("value", lambda t: t.float(), TypeError, "sampling_locations is torch.float64"),
    ("value", lambda t: t[:, :, :1], ValueError, "M is 1 in value"),
    ("value", lambda t: t.to("meta"), ValueError, "sampling_locations is on cpu, value on meta"),
    ("shapes", lambda t: t.int(), TypeError, "spatial_shapes must be int64"),
    ("shapes", lambda t: t[:2], ValueError, r"spatial_shapes must be \(4, 2\), got \(2, 2\)"),
    ("shapes", lambda t: t + 1, ValueError, r"level_start_index\[1\] is 108"),
    ("shapes", lambda t: -t, ValueError, "level 0 of spatial_shapes is -12 x -9"),
    ("shapes", lambda t: t * 2**31, ValueError, "more than the 149 tokens"),
    ("starts", lambda t: t + 1, ValueError, r"level_start_index\[0\] is 1"),
    ("starts", lambda t: t.to("meta"), ValueError, "level_start_index is on meta"),
    ("starts", lambda t: t[:, None], ValueError, r"level_start_index must be \(4,\)"),
    ("locations", lambda t: t[..., :1], ValueError, r"sampling_locations must be \(N, Q, M, L, P, 2\)"),
    ("locations", lambda t: t[:, :, :, :0], ValueError, "there must be at least one level"),
    ("locations", lambda t: t[:1], ValueError, "N is 2 in value"),
    ("locations", lambda t: t.long(), TypeError, "sampling_locations is torch.int64"),
    ("weights", lambda t: t[..., :1], ValueError, r"attention_weights must be \(2, 30, 8, 4, 4\)"),
    ("weights", lambda t: t.bool(), TypeError, "attention_weights is torch.bool"),
]


@pytest.mark.parametrize(("name", "spoil", "error", "message"), ERRORS)
def test_errors_say_what_does_not_fit(
    name: str, spoil: Callable[[Tensor], Tensor], error: type[Exception], message: str
) -> None:
    arguments = dict(zip(("value", "shapes", "starts", "locations", "weights"), inputs(CASES[0]), strict=True))
    arguments[name] = spoil(arguments[name])
    with pytest.raises(error, match=message):
        ops.msda(*arguments.values())
    if arguments["value"].is_cpu:  # the kernel itself keeps inside its memory as well
        with pytest.raises((ValueError, TypeError, RuntimeError)):
            torch.ops.detrbench.msda(*arguments.values())
