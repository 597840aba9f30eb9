from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from detrbench.measure import latency, protocols

PROTOCOL = protocols.get("latency").at(8, 8, rounds=7)


class Sleeper(nn.Module):
    """Sleeps in its parts: 2 ms in the encoder of which 1 ms in the heads inside it, and 1 ms in the heads alone."""

    def __init__(self, log: list[str], name: str, seconds: float = 0.001) -> None:
        super().__init__()
        self.log, self.name = log, name
        self.heads = Sleep(seconds)
        self.encoder = nn.Sequential(Sleep(seconds), self.heads)

    @property
    def parts(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "heads": self.heads}

    def forward(self, images: Tensor, masks: Tensor | None) -> SimpleNamespace:
        assert not self.training
        assert torch.is_inference_mode_enabled()
        self.log.append(self.name)
        return SimpleNamespace(pred_logits=self.heads(self.encoder(images)))


class Sleep(nn.Module):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.seconds = seconds

    def forward(self, images: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return images * self.weight


def test_rounds_interleave_in_a_seeded_shuffled_order() -> None:
    log: list[str] = []
    sleepers = {name: Sleeper(log, name, 0.0001).train() for name in "ABC"}
    images = {name: torch.zeros(1, 3, 8, 8) for name in sleepers}
    latency._rounds(sleepers, images, PROTOCOL, None)
    rounds = [log[i : i + 3] for i in range(0, len(log), 3)]
    assert len(rounds) == 7
    assert all(sorted(each) == ["A", "B", "C"] for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1
    first, log[:] = log[:], []
    latency._rounds(sleepers, images, PROTOCOL, None)
    assert log == first
    assert all(sleeper.training for sleeper in sleepers.values())


def test_record() -> None:
    told: list[tuple[int, int]] = []
    record = latency.measure({"A": Sleeper([], "A")}, PROTOCOL, lambda *at: told.append(at))["A"]
    assert len(record.samples_ms) == record.median_ms.n == 7
    assert record.median_ms.value >= 3
    assert record.median_ms.low is not None
    assert record.median_ms.low <= record.median_ms.value <= record.p95_ms
    assert record.fps == pytest.approx(1000 / record.median_ms.value)
    assert (record.batch_size, record.height, record.width, record.dtype) == (1, 8, 8, "float32")
    assert record.threads == torch.get_num_threads()
    assert told[-1] == (7, 7)
    assert any("CPU for only" in warning for warning in record.warnings)  # it slept: wall time without CPU time


def test_parts_inside_parts_count_for_the_outer_one() -> None:
    record = latency.measure({"A": Sleeper([], "A", 0.005)}, PROTOCOL)["A"]
    assert list(record.by_part_ms) == ["encoder", "heads", "other"]
    assert record.by_part_ms["encoder"] >= 10
    assert 5 <= record.by_part_ms["heads"] < record.by_part_ms["encoder"]
    assert record.by_part_ms["other"] < 5


def test_warm_up_is_bounded() -> None:
    log: list[str] = []
    latency._warm_up(Sleeper(log, "A", 0.0001), torch.zeros(1, 3, 8, 8), PROTOCOL)
    assert PROTOCOL.warmup_min <= len(log) <= PROTOCOL.warmup_max


def test_hooks_are_removed() -> None:
    sleeper = Sleeper([], "A", 0.0)
    latency.by_part(sleeper, torch.zeros(1, 3, 8, 8))
    assert not sleeper.encoder._forward_hooks
    assert not sleeper.encoder._forward_pre_hooks


def test_detectors_must_share_a_device() -> None:
    detectors = {"A": Sleeper([], "A"), "B": Sleeper([], "B").to("meta")}
    with pytest.raises(ValueError, match="one device"):
        latency.measure(detectors, PROTOCOL)
