"""Device times are those of kernels, whatever launching them takes: on a simulated stream, since there is no device."""

from __future__ import annotations

import pytest
from benchmark_scripts import script

gpu = script("gpu")


class Stream:
    """A CPU that launches, and a device that works off what was launched; times in milliseconds."""

    def __init__(self) -> None:
        self.now = self.free = 0.0

    def launch(self, kernel: float, launching: float = 0.0) -> None:
        self.now += launching
        self.free = max(self.now, self.free) + kernel

    def synchronize(self) -> None:
        self.now = max(self.now, self.free)

    def sleep(self, cycles: int) -> None:
        self.launch(cycles / 2e6)


class Event:
    stream: Stream

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = max(self.stream.now, self.stream.free)

    def query(self) -> bool:
        return self.stream.now >= self.at

    def elapsed_time(self, end: Event) -> float:
        return end.at - self.at


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    stream = Stream()
    monkeypatch.setattr(Event, "stream", stream, raising=False)
    monkeypatch.setattr("torch.cuda.Event", Event)
    monkeypatch.setattr("torch.cuda.synchronize", stream.synchronize)
    monkeypatch.setattr("torch.cuda._sleep", stream.sleep)
    return stream


@pytest.mark.parametrize("launching", [0.001, 0.05, 40.0])  # less than the kernel takes; more; more than the first wait
def test_launching_is_not_timed(stream: Stream, launching: float) -> None:
    found = gpu.kernel_milliseconds(lambda: stream.launch(0.01, launching), repeats=20)
    assert found == pytest.approx(0.01)


def test_work_that_waits_for_the_device_is_refused(stream: Stream) -> None:
    with pytest.raises(RuntimeError, match="waits for the device"):
        gpu.kernel_milliseconds(stream.synchronize, repeats=2)
