"""The baseline of the GPU benchmark, emulated: the first algorithm computes what ours does."""

from __future__ import annotations

import ctypes
import sys

import pytest
import torch
from benchmark_scripts import FOLDER, script
from mistakes.catalogue import ROOT
from op_cases import CASES, Case, assert_close, inputs, leaves_of, true_gradients, true_output

from detrbench.models.ops import toolchain

sys.path.append(str(ROOT / "tests" / "cuda_emulation"))
import emulated

pytestmark = pytest.mark.skipif(toolchain.cxx() is None, reason="there is no C++ compiler")
original = script("original")
WHOLE_WARPS = [case for case in CASES if case.depth in (32, 64) and case.queries * case.images * case.points]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return ctypes.CDLL(str(emulated.alone(original.SOURCE, tmp_path_factory.mktemp("original"))))


@pytest.mark.parametrize("case", WHOLE_WARPS, ids=lambda case: case.name)
def test_output_and_gradients_are_the_references(library: ctypes.CDLL, case: Case) -> None:
    arguments = leaves_of(inputs(case, torch.float32))
    output = original.attention(library)(*arguments)
    assert_close(output.detach(), true_output([t.detach() for t in arguments]), 5e-6)
    grad_output = torch.randn(output.shape)
    found = torch.autograd.grad(output, [arguments[0], *arguments[3:]], grad_output)
    truths = true_gradients(grad_output, [t.detach() for t in arguments])
    for gradient, truth in zip(found, truths, strict=True):
        assert_close(gradient, truth, 2e-5)


def test_what_it_does_not_take_is_refused(library: ctypes.CDLL) -> None:
    for arguments in (inputs(CASES[0]), inputs(Case("eight", ((3, 2),), depth=8), torch.float32)):
        with pytest.raises(ValueError, match="expected float32 and whole warps of channels"):
            original.attention(library)(*arguments)


def test_the_benchmark_times_it_beside_ours(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    op = script("op")
    first = original.attention(library)
    timings = [op.measure("msda", "decoder 300", "forward", name, "cpu", 1, None, first) for name in op.TYPES]
    assert [timing.type for timing in timings if timing.original_min] == ["float32"]
    others = [op.measure(name, "decoder 300", "forward", "float32", "cpu", 1, None, first) for name in op.OPERATIONS]
    assert [timing.operation for timing in others if timing.original_min] == ["msda"]
    assert all(timing.ours_min > 0 and timing.reference_min > 0 for timing in others)
