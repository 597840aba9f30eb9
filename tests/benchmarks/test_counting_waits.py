"""What counts as waiting for the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from benchmark_scripts import script
from torch import Tensor, nn

waits = script("waits")

CASES: dict[str, tuple[Callable[[Tensor], Any], int]] = {
    "a value": (lambda x: x.sum().item(), 1),
    "a branch": (lambda x: bool(x.sum() > 0), 1),
    "all values": (lambda x: x.tolist(), 1),
    "a copy to the host": (lambda x: x.cpu().numpy(), 1),
    "an asynchronous copy to the host, which its reader waits for": (lambda x: x.to("cpu", non_blocking=True), 1),
    "places of what is true": (lambda x: (x > 1).nonzero(), 1),
    "a choice by mask": (lambda x: x[x > 1], 1),
    "an assignment by mask": (lambda x: x.__setitem__(x > 1, torch.ones(2, device=x.device)), 1),
    "an index from the host": (lambda x: x[torch.tensor([0, 1])], 1),
    "numbers from the host": (lambda x: torch.tensor([1.0], device=x.device), 1),
    "more of them": (lambda x: x.new_tensor([1.0, 2.0]), 1),
    "a copy onto the device": (lambda x: torch.zeros(3).to(x.device), 1),
    "a copy into what is there": (lambda x: x.copy_(torch.zeros(3)), 1),
    "a product with its gradient": (lambda x: x.clone().requires_grad_().prod(0).backward(), 1),
    "counts": (lambda x: x.long().bincount(), 1),
    "repeats by number": (lambda x: x.repeat_interleave(x.long()), 1),
    "an asynchronous copy onto the device": (lambda x: torch.zeros(3).to(x.device, non_blocking=True), 0),
    "arithmetic": (lambda x: (x * 2 + torch.arange(3, device=x.device)).clamp(max=3), 0),
    "an index from the device": (lambda x: x[x.long() % 2], 0),
    "a number of the host": (lambda x: torch.where(x > 1, torch.tensor(2.0), x), 0),
    "sorting": (lambda x: x.sort().values.topk(2).indices, 0),
    "repeats by a number of the host": (lambda x: x.repeat_interleave(2), 0),
    "work of the host": (lambda x: torch.arange(3).tolist(), 0),
}


@pytest.mark.parametrize("case", CASES)
def test_what_waits(case: str) -> None:
    work, expected = CASES[case]
    tensor = waits.far(torch.tensor([1.0, 2.0, 3.0]))
    with waits.Waits() as counted:
        work(tensor)
    assert counted.total == expected, counted.by_place


def test_the_place_is_named() -> None:
    tensor = waits.far(torch.ones(2))
    with waits.Waits() as counted:
        for _ in range(2):
            tensor.tolist()
    assert list(counted.by_place.values()) == [2]
    assert "tests/benchmarks/test_counting_waits.py:" in next(iter(counted.by_place))


def test_tensors_of_both_places_do_not_mix() -> None:
    tensor = waits.far(torch.ones(2))
    with waits.Waits(), pytest.raises(RuntimeError, match="on the device, others on the host"):
        tensor + torch.ones(2)


def test_a_module_trains_there_as_it_does_here() -> None:
    torch.manual_seed(0)
    here = nn.Linear(3, 2)
    there = nn.Linear(3, 2)
    there.load_state_dict(here.state_dict())
    there = waits.far(there)
    here(torch.ones(1, 3)).sum().backward()
    with waits.Waits() as counted:
        there(waits.far(torch.ones(1, 3))).sum().backward()
    assert counted.total == 0
    assert torch.equal(there.weight.grad.near, here.weight.grad)
