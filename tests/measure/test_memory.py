from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from detrbench.measure import memory, protocols
from detrbench.worker.peak import peak

MIB = 2**20
CPU = torch.device("cpu")
PROTOCOL = protocols.get("memory").at(64, 64)


class Known(nn.Module):
    """Forward needs 12 MiB beside its 1 MiB of weights; a training step keeps gradients and moments as well."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(MIB // 4))
        self.criterion = Criterion()

    def forward(self, images: Tensor, masks: Tensor | None) -> SimpleNamespace:
        large = torch.zeros(2 * MIB)  # 8 MiB
        small = large[:MIB] + 1  # 4 MiB
        del large
        return SimpleNamespace(pred=self.weight * small[0])


class Criterion(nn.Module):
    def forward(self, out: SimpleNamespace, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        assert len(targets) == 1
        assert targets[0]["boxes"].shape == (PROTOCOL.objects, 4)
        return {"loss": out.pred.sum()}

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        return losses["loss"]


def test_forward_peak_is_that_of_the_tensors() -> None:
    record = memory.measure(Known(), PROTOCOL, training=False)
    assert record.forward_mib == pytest.approx(12, abs=0.1)
    assert record.training_step_mib is None
    assert record.process_peak_mib > 50


def test_training_step_holds_gradient_and_moments() -> None:
    detector = Known()
    record = memory.measure(detector, PROTOCOL)
    assert record.training_step_mib is not None
    # First step: forward's 12 MiB on top of nothing. Second: the 2 moments are there, the gradient is not.
    assert record.training_step_mib == pytest.approx(14, abs=0.1)
    assert detector.weight.grad is None
    assert (detector.weight == 0).all()


def test_what_was_held_before_does_not_count() -> None:
    held = torch.zeros(64 * MIB // 4)
    assert peak(lambda: held.add_(1), CPU) < MIB
    assert peak(lambda: held + 1, CPU) == pytest.approx(64 * MIB, rel=0.01)


def test_released_memory_is_not_added_up() -> None:
    def run() -> None:
        for _ in range(5):
            torch.zeros(MIB)

    assert peak(run, CPU) == pytest.approx(4 * MIB, rel=0.01)
