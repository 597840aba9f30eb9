"""Which device a run takes."""

from __future__ import annotations

import pytest
import torch

from detrbench.environment import pick_device
from detrbench.errors import EnvironmentLacking, UsageError


@pytest.mark.parametrize("asked", ["gpu", "CPU", "cuda:", "cuda:x", "cuda:1000", "", "mps", "x" * 500])
def test_a_device_that_nobody_knows_is_refused_with_those_there_are(asked: str) -> None:
    with pytest.raises(UsageError, match="expected auto, cpu, cuda or cuda:N") as refused:
        pick_device(asked)
    assert len(refused.value.message) < 200


def test_a_device_that_this_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (pick_device("auto"), pick_device("cpu")) == ("cpu", "cpu")
    with pytest.raises(EnvironmentLacking, match="cuda:1: "):
        pick_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert (pick_device("auto"), pick_device("cuda:1")) == ("cuda", "cuda:1")
    with pytest.raises(EnvironmentLacking, match="there are 2, counted from 0"):
        pick_device("cuda:2")
