"""The operation as PyTorch's machinery sees it: gradients, shapes, compilation, autocast, multiply-adds."""

from __future__ import annotations

import pytest
import torch
from op_cases import CASES, Case, inputs
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from detrbench.models import ops

TINY = Case("tiny", ((4, 3), (2, 2)), images=1, queries=3, depth=3, points=2)
MSDA, MSDA_BACKWARD = torch.ops.detrbench.msda.default, torch.ops.detrbench.msda_backward.default


def differentiable(case: Case, dtype: torch.dtype = torch.float64, device: str = "cpu") -> list[Tensor]:
    return [t.requires_grad_(t.is_floating_point()) for t in inputs(case, dtype, device)]


@pytest.mark.parametrize("case", [TINY, Case("many", ((4, 3), (2, 2)), queries=9, heads=1, depth=1, points=1)])
def test_gradients_are_those_of_the_output(case: Case) -> None:
    assert torch.autograd.gradcheck(ops.msda, differentiable(case))


def test_opcheck() -> None:
    torch.library.opcheck(MSDA, differentiable(TINY))
    arguments = inputs(TINY)
    torch.library.opcheck(MSDA_BACKWARD, [torch.ones_like(ops.msda(*arguments)), *arguments])


def test_there_is_no_second_gradient() -> None:
    arguments = differentiable(TINY)
    (gradient,) = torch.autograd.grad(ops.msda(*arguments).pow(2).sum(), arguments[0], create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivative"):
        gradient.sum().backward()


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_break(dynamic: bool) -> None:
    def twice(*arguments: Tensor) -> Tensor:
        return ops.msda(*arguments).tanh() * 2

    compiled = torch.compile(twice, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for case in (TINY, CASES[0]):
        ours, theirs = differentiable(case), differentiable(case)
        torch.testing.assert_close(compiled(*ours), twice(*theirs))
        compiled(*ours).sum().backward()
        twice(*theirs).sum().backward()
        torch.testing.assert_close(ours[3].grad, theirs[3].grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_works_on_the_meta_device(dtype: torch.dtype) -> None:
    arguments = differentiable(CASES[0], dtype, "meta")
    output = ops.msda(*arguments)
    assert (output.device.type, output.dtype, output.shape) == ("meta", dtype, (2, 30, 8 * 32))
    output.sum().backward()
    assert arguments[0].grad is not None
    assert arguments[0].grad.shape == arguments[0].shape
    arguments[1], arguments[2] = inputs(CASES[0])[1:3]  # levels may stay on the CPU
    assert ops.msda(*arguments).shape == output.shape


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_narrows_the_value_only(weights: torch.dtype) -> None:
    arguments = differentiable(CASES[0], torch.float32)
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
    arguments = differentiable(case, torch.float32, device)
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


def test_gradients_nobody_asks_for_are_not_in_the_way() -> None:
    arguments = inputs(TINY)
    arguments[4].requires_grad_()
    ops.msda(*arguments).sum().backward()
    assert arguments[4].grad is not None
    assert arguments[0].grad is None
