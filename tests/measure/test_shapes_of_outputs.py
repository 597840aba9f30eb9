"""Remembered shapes of meta operators: as if computed, and nothing remembered that must run."""

from __future__ import annotations

from typing import Any

import torch

from detrbench.measure import shapes


def test_an_output_looks_as_if_it_had_been_computed() -> None:
    outputs = shapes.MetaOutputs()
    image = torch.empty(1, 3, 8, 6, device="meta").permute(0, 2, 3, 1)
    for function, args in [
        (torch.ops.aten.add.Tensor, (image, 1)),
        (torch.ops.aten.add.Tensor, (image, 1.0)),
        (torch.ops.aten.add.Tensor, (image.int(), 1)),
        (torch.ops.aten.add.Tensor, (image.int(), 1.0)),
        (torch.ops.aten.topk.default, (image, 2)),
        (torch.ops.aten.split.Tensor, (image, 4, 1)),
    ]:
        for _ in range(2):
            found, expected = outputs.run(function, args, {}), function(*args)
            for one, other in zip(_flat(found), _flat(expected), strict=True):
                assert (one.shape, one.stride(), one.dtype) == (other.shape, other.stride(), other.dtype)


def _flat(out: Any) -> list[torch.Tensor]:
    return [out] if isinstance(out, torch.Tensor) else list(out)


def test_what_writes_always_runs() -> None:
    outputs, target = shapes.MetaOutputs(), torch.empty(3, device="meta")
    for _ in range(2):
        assert outputs.run(torch.ops.aten.add_.Tensor, (target, 1), {}) is target
    real = torch.ones(3)
    for value in (1, 2):
        assert outputs.run(torch.ops.aten.add.Tensor, (real, value), {}).tolist() == [1 + value] * 3
