"""The operation as PyTorch's machinery sees it: gradients, shapes, compilation, autocast, multiply-adds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from op_cases import CASES, TINY, Case, inputs, key_aware_inputs, leaves_of
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from detrbench.models import ops

MSDA, MSDA_BACKWARD = torch.ops.detrbench.msda.default, torch.ops.detrbench.msda_backward.default


@pytest.mark.parametrize("case", [TINY, Case("many", ((4, 3), (2, 2)), queries=9, heads=1, depth=1, points=1)])
def test_gradients_are_those_of_the_output(case: Case) -> None:
    assert torch.autograd.gradcheck(ops.msda, leaves_of(inputs(case)), nondet_tol=1e-12)


def test_opcheck() -> None:
    torch.library.opcheck(MSDA, leaves_of(inputs(TINY)))
    arguments = inputs(TINY)
    torch.library.opcheck(MSDA_BACKWARD, [torch.ones_like(ops.msda(*arguments)), *arguments])


def test_there_is_no_second_gradient() -> None:
    arguments = leaves_of(inputs(TINY))
    (gradient,) = torch.autograd.grad(ops.msda(*arguments).pow(2).sum(), arguments[0], create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivative"):
        gradient.sum().backward()


@pytest.mark.parametrize("dynamic", [pytest.param(False, marks=pytest.mark.full), True])
def test_compiles_without_a_break(dynamic: bool) -> None:
    def twice(*arguments: Tensor) -> Tensor:
        return ops.msda(*arguments).tanh() * 2

    compiled = torch.compile(twice, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for case in (TINY, CASES[0]):
        ours, theirs = leaves_of(inputs(case)), leaves_of(inputs(case))
        torch.testing.assert_close(compiled(*ours), twice(*theirs))
        compiled(*ours).sum().backward()
        twice(*theirs).sum().backward()
        torch.testing.assert_close(ours[3].grad, theirs[3].grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_works_on_the_meta_device(dtype: torch.dtype) -> None:
    arguments = leaves_of(inputs(CASES[0], dtype, "meta"))
    output = ops.msda(*arguments)
    assert (output.device.type, output.dtype, output.shape) == ("meta", dtype, (2, 30, 8 * 32))
    output.sum().backward()
    assert arguments[0].grad is not None
    assert arguments[0].grad.shape == arguments[0].shape
    arguments[1], arguments[2] = inputs(CASES[0])[1:3]  # levels may stay on the CPU
    assert ops.msda(*arguments).shape == output.shape


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_narrows_the_value_only(weights: torch.dtype) -> None:
    arguments = leaves_of(inputs(CASES[0], torch.float32))
    narrow = [*arguments[:4], arguments[4].detach().to(weights)]
    with torch.autocast("cpu", torch.bfloat16):
        output = ops.msda(*narrow)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output, ops.msda(narrow[0].bfloat16(), *narrow[1:]))
    output.sum().backward()
    assert arguments[0].grad is not None
    assert arguments[0].grad.dtype == torch.float32
    assert arguments[3].grad is not None
    assert arguments[3].grad.dtype == torch.float32


def test_autocast_leaves_float64_alone() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert ops.msda(*inputs(CASES[0])).dtype == torch.float64


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_flops_are_counted(device: str) -> None:
    case = CASES[0]
    arguments = leaves_of(inputs(case, torch.float32, device))
    with FlopCounterMode(display=False) as counter:
        ops.msda(*arguments).sum().backward()
    channels = case.images * case.queries * case.heads * len(case.levels) * case.points * case.depth
    macs = ops.msda_macs(arguments[0].shape, arguments[3].shape)
    assert macs == 5 * channels  # four corners and a weight
    assert ops.grid_sample_macs(arguments[0].shape, arguments[3].shape) == 4 * channels
    assert counter.get_flop_counts()["Global"] == {
        torch.ops.detrbench.msda: 2 * macs,
        torch.ops.detrbench.msda_backward: 4 * macs,
    }


KEY_AWARE = torch.ops.detrbench.key_aware_attention.default
TRANSFORMS = {
    "jvp": lambda f, x: torch.func.jvp(f, (x,), (torch.ones_like(x),)),
    "grad": lambda f, x: torch.func.grad(lambda value: f(value).sum())(x),
    "vjp": lambda f, x: torch.func.vjp(f, x),
    "dual numbers": lambda f, x: dual(f, x),
}


def dual(function: Callable[[Tensor], Tensor], x: Tensor) -> None:
    with forward_ad.dual_level():
        function(forward_ad.make_dual(x, torch.ones_like(x)))


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_derivatives_that_there_are_not_are_refused(transform: Callable[..., None]) -> None:
    value, *others = inputs(TINY)
    query = key_aware_inputs(TINY)[4]
    for operation in (lambda v: ops.msda(v, *others), lambda v: ops.key_aware_attention(v, *others[:3], query)[0]):
        with pytest.raises(NotImplementedError, match=r"no derivatives under torch\.func or forward mode.*backward"):
            transform(operation, value)


def test_vmap_maps() -> None:
    value, *others = inputs(TINY)
    mapped = torch.func.vmap(lambda v: ops.msda(v, *others))(torch.stack([value, 2 * value]))
    torch.testing.assert_close(mapped, torch.stack([ops.msda(value, *others), ops.msda(2 * value, *others)]))


NO_TENSORS = {
    "a list": lambda t: t.tolist(),
    "nothing": lambda t: None,
    "sparse": lambda t: t.to_sparse(),
}


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize("spoil", NO_TENSORS.values(), ids=NO_TENSORS)
def test_what_is_no_dense_tensor_is_refused(spoil: Callable[[Tensor], object], index: int) -> None:
    for operation, arguments in ((ops.msda, inputs(TINY)), (ops.key_aware_attention, key_aware_inputs(TINY))):
        given = [*arguments[:index], spoil(arguments[index]), *arguments[index + 1 :]]
        with pytest.raises(TypeError, match=r"must be a dense tensor, got (list|NoneType|torch\.sparse_coo)"):
            operation(*given)


@pytest.mark.parametrize("layout", ["to_sparse", "to_mkldnn"])
@pytest.mark.parametrize("operation", [MSDA, KEY_AWARE, ops.msda, ops.key_aware_attention])
def test_other_layouts_are_refused_where_the_native_kernels_do_not_see_them(
    operation: Callable[..., object], layout: str
) -> None:
    make = inputs if operation in (MSDA, ops.msda) else key_aware_inputs
    value, *others = make(TINY, torch.float32)
    with pytest.raises(TypeError, match="value must be a dense tensor"):
        operation(getattr(value, layout)(), *others)


@pytest.mark.parametrize("index", [3, 4])
def test_the_raw_operations_refuse_types_that_they_do_not_know(index: int) -> None:
    arguments = inputs(TINY, torch.float32)
    arguments[index] = arguments[index].to(torch.float8_e4m3fn)
    with pytest.raises(TypeError, match="must be float32, float64, float16 or bfloat16"):
        MSDA(*arguments)
    with pytest.raises(TypeError, match="must be float32, float64, float16 or bfloat16"):
        MSDA_BACKWARD(torch.ones(1, 3, 6), *arguments)


def test_gradients_nobody_asks_for_are_not_in_the_way() -> None:
    arguments = inputs(TINY)
    arguments[4].requires_grad_()
    ops.msda(*arguments).sum().backward()
    assert arguments[4].grad is not None
    assert arguments[0].grad is None
