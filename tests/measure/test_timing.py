from __future__ import annotations

import dataclasses
import re
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detrbench import models
from detrbench.errors import EnvironmentLacking
from detrbench.measure import latency, protocols, timing
from detrbench.measure.protocols.latency import MODES, Mode
from detrbench.worker.clock import window

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


def test_rounds_interleave_in_a_seeded_shuffled_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_warm_up", lambda *of: None)
    monkeypatch.setattr(timing, "disturbed", lambda share: np.zeros(len(share), dtype=bool))  # nothing is taken again
    log: list[str] = []
    sleepers = {name: Sleeper(log, name, 0.0001).train() for name in "ABC"}
    found = timing.time_together(sleepers, PROTOCOL)
    rounds = [log[i : i + 4] for i in range(0, len(log), 4)]
    assert len(rounds) == 7
    assert all(sorted(each) == ["A", "A", "B", "C"] for each in rounds)  # A is its own twin
    assert len({tuple(each) for each in rounds}) > 1
    assert (found.twin_of, len(found.twin.device_ms)) == ("A", 7)
    first, log[:] = log[:], []
    timing.time_together(sleepers, PROTOCOL)
    assert log == first
    log[:] = []
    timing.time_together(sleepers, PROTOCOL, process=1)
    assert log != first
    assert all(sleeper.training for sleeper in sleepers.values())


def test_processes_become_one_record() -> None:
    detectors = {name: Sleeper([], name, 0.0005) for name in "AB"}
    asked: list[int] = []

    told: list[tuple[int, int]] = []

    def other(process: int, progress: Any) -> timing.Timed:
        asked.append(process)
        return timing.time_together(detectors, PROTOCOL, progress, process)

    three = dataclasses.replace(PROTOCOL, processes=3)
    records = latency.measure(detectors, three, lambda *at: told.append(at), others=other)
    assert asked == [1, 2]
    assert told == [(done, 21) for first in (0, 7, 14) for done in range(first, first + 8)]
    for record in records.values():
        assert (record.processes, len(record.samples_ms), len(record.host_ms), len(record.machine)) == (3, 21, 21, 3)
        assert record.self_ratio is not None
        assert record.self_ratio.n == 21
    assert records["A"].session == records["B"].session != ""


def test_a_window_gives_the_mean_forward() -> None:
    protocol = dataclasses.replace(PROTOCOL, window_seconds=0.05, rounds=2)
    log: list[str] = []
    found = timing.time_together({"A": Sleeper(log, "A", 0.002)}, protocol)
    assert len(log) >= 2 * 2 * 5
    assert all(6 <= milliseconds < 20 for milliseconds in found.samples["A"].device_ms)


def test_sizes_of_val2017_change_from_round_to_round() -> None:
    seen: list[tuple[int, ...]] = []
    detector = Sleeper([], "A", 0.0)
    detector.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
    protocol = dataclasses.replace(protocols.get("latency", "val2017"), rounds=3, processes=1, warmup_seconds=0.0)
    timing.time_together({"A": detector}, protocol)
    assert len(set(seen)) == 3


def test_the_native_size_is_one_input_whatever_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, ...]] = []
    real = timing.noise
    monkeypatch.setattr(timing, "noise", lambda *size: made.append(size) or real(*size))
    protocol = dataclasses.replace(
        protocols.get("latency", "native"), rounds=3, height=32, width=32, warmup_seconds=0.0
    )
    timing.time_together({"A": Sleeper([], "A", 0.0)}, protocol)
    assert len(made) == 1


def test_compiled_detectors_are_timed_without_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda module, dynamic: module)
    record = latency.measure({"A": Sleeper([], "A")}, dataclasses.replace(PROTOCOL, mode="compiled"))["A"]
    assert (record.mode, record.by_part_ms) == ("compiled", {})


def test_the_form_for_inference_is_what_is_timed_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(models, "for_inference", lambda detector: Sleeper(calls, "optimised", 0.0).eval())
    protocol = dataclasses.replace(PROTOCOL, mode="optimised")
    detector = Sleeper(calls, "as it is", 0.0)
    record = latency.measure({"A": detector}, protocol)["A"]
    assert set(calls) == {"optimised"}
    assert record.mode == "optimised"
    assert record.by_part_ms
    assert "in the form for inference" in record.convention
    timing.try_mode(detector, protocol)
    assert set(calls) == {"optimised"}


class Exported:
    """An ONNX file that answers as a detector does, or something else by `off`."""

    def __init__(self, calls: list[str], off: float) -> None:
        self.calls, self.off = calls, off

    def __call__(self, images: Tensor) -> None:
        self.calls.append(str(tuple(images.shape)))


@pytest.mark.parametrize("off", [0.0, 0.1])
@pytest.mark.parametrize(("runtime", "said"), [("onnxruntime", "ONNX Runtime"), ("openvino", "OpenVINO")])
def test_an_exported_detector_is_timed_if_it_predicts_the_same(
    monkeypatch: pytest.MonkeyPatch, runtime: Mode, said: str, off: float
) -> None:
    calls: list[str] = []
    written: list[tuple[int, ...]] = []
    monkeypatch.setattr(timing, "export_onnx", lambda detector, path, *shape: written.append(shape))
    monkeypatch.setitem(timing.RUNTIMES, runtime, lambda path, threads: Exported(calls, off))
    monkeypatch.setattr(
        timing, "differences", lambda detector, exported, images: torch.tensor([exported.off, 0.0, exported.off])
    )
    protocol = dataclasses.replace(PROTOCOL, mode=runtime)
    detector = Sleeper([], "A", 0.0)
    if off:
        with pytest.raises(EnvironmentLacking, match=r"predicts something else: 0\.1 apart"):
            timing.try_mode(detector, protocol)
        return
    timing.try_mode(detector, protocol)
    record = latency.measure({"A": detector}, protocol)["A"]
    assert (record.mode, record.by_part_ms) == (runtime, {})
    assert said in record.convention
    assert written == [(protocol.batch_size, protocol.height, protocol.width)]  # once, though tried before
    assert set(calls) == {str((protocol.batch_size, 3, protocol.height, protocol.width))}


def test_each_runtime_runs_its_own_file(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[str, list[str]] = {name: [] for name in timing.RUNTIMES}
    monkeypatch.setattr(timing, "export_onnx", lambda *given: None)
    monkeypatch.setattr(timing, "differences", lambda *given: torch.zeros(1))
    for name in timing.RUNTIMES:
        monkeypatch.setitem(timing.RUNTIMES, name, lambda path, threads, name=name: Exported(calls[name], 0.0))
    detector = Sleeper([], "A", 0.0)
    for mode in ("onnxruntime", "openvino"):
        timing.try_mode(detector, dataclasses.replace(PROTOCOL, mode=mode))
    assert [len(each) for each in calls.values()] == [1, 1]


def test_an_exported_detector_is_timed_in_float32() -> None:
    with pytest.raises(EnvironmentLacking, match="in float32"):
        timing.try_mode(Sleeper([], "A", 0.0).to(torch.float64), dataclasses.replace(PROTOCOL, mode="onnxruntime"))


def test_cuda_graphs_need_cuda() -> None:
    with pytest.raises(EnvironmentLacking, match="CUDA"):
        latency.measure({"A": Sleeper([], "A")}, dataclasses.replace(PROTOCOL, mode="cuda_graph"))


class Computing(Sleeper):
    """Notes the type that its products come in."""

    def forward(self, images: Tensor, masks: Tensor | None) -> SimpleNamespace:
        self.log.append(str((images[..., :1] @ images[..., :1, :]).dtype))
        return super().forward(images, masks)


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_bfloat16_is_computed_in_around_weights_that_stay(monkeypatch: pytest.MonkeyPatch, mode: Mode) -> None:
    monkeypatch.setattr(torch, "compile", lambda module, dynamic: module)
    log: list[str] = []
    detector = Computing(log, "A", 0.0)
    protocol = dataclasses.replace(PROTOCOL, mode=mode, precision="bfloat16")
    timing.try_mode(detector, protocol)
    assert log.pop(0) == "torch.bfloat16"  # whatever keeps it from that type is found before anything is timed
    record = latency.measure({"A": detector}, protocol)["A"]
    assert set(log) == {"torch.bfloat16", "A"}
    assert (record.dtype, next(detector.parameters()).dtype) == ("bfloat16", torch.float32)
    assert "bfloat16 under autocast (weights in float32)" in record.convention


def test_without_autocast_the_type_is_that_of_the_weights() -> None:
    log: list[str] = []
    record = latency.measure({"A": Computing(log, "A", 0.0).to(torch.float64)}, PROTOCOL)["A"]
    assert set(log) == {"torch.float64", "A"}
    assert record.dtype == "float64"


def test_quick_form_has_one_process() -> None:
    whole = protocols.get("latency")
    assert (whole.processes, whole.at(96, 96).processes) == (3, 1)
    assert "each of 3 processes" in whole.convention


def test_samples_without_a_cpu_are_marked_and_left_out() -> None:
    times = [1.0] * 8 + [3.0] * 2
    held = timing.Samples(False, times, times, [1.0] * 10)
    marks = latency._marks([held])
    assert marks.tolist() == [False] * 8 + [True] * 2
    assert latency._middle([held]).n == 8
    assert any("2 of 10 samples" in remark for remark in latency._own_remarks([held], marks, times))
    assert not latency._marks([timing.Samples(True, times, times, [1.0] * 10)]).any()


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
    assert told == [(done, 7) for done in range(8)]
    assert any("CPU for only" in warning for warning in record.warnings)  # it slept: wall time without CPU time


def test_parts_inside_parts_count_for_the_outer_one() -> None:
    record = latency.measure({"A": Sleeper([], "A", 0.005)}, PROTOCOL)["A"]
    assert list(record.by_part_ms) == ["encoder", "heads", "other"]
    assert record.by_part_ms["encoder"] >= 10
    assert 5 <= record.by_part_ms["heads"] < record.by_part_ms["encoder"]
    assert record.by_part_ms["other"] < 5


@pytest.mark.parametrize(("slower", "longest"), [(0.0, 0.1), (0.001, 0.5)])
def test_warm_up_lasts_its_time_and_is_bounded(slower: float, longest: float) -> None:
    runs: list[float] = []

    def run(images: Tensor) -> None:  # settled from the start, or slower each time and never settled
        runs.append(slower)
        time.sleep(0.001 + slower * len(runs))

    began = time.perf_counter()
    images = torch.zeros(1, 3, 8, 8)
    timing._warm_up(
        lambda images, seconds: window(lambda: run(images), images.device, seconds),
        images,
        dataclasses.replace(PROTOCOL, warmup_seconds=0.03),
    )
    assert 0.03 <= time.perf_counter() - began <= 2 * longest


def test_hooks_are_removed() -> None:
    sleeper = Sleeper([], "A", 0.0)
    latency.by_part(sleeper, torch.zeros(1, 3, 8, 8), PROTOCOL)
    assert not sleeper.encoder._forward_hooks
    assert not sleeper.encoder._forward_pre_hooks


def test_detectors_must_share_a_device() -> None:
    detectors = {"A": Sleeper([], "A"), "B": Sleeper([], "B").to("meta")}
    with pytest.raises(ValueError, match="one device"):
        latency.measure(detectors, PROTOCOL)


def record_of(monkeypatch: pytest.MonkeyPatch, milliseconds: list[float], **changes: object) -> latency.Latency:
    """A record of these samples, none of which lost its CPU."""
    samples = timing.Samples(False, milliseconds, milliseconds, milliseconds)

    def time_together(*of: object) -> timing.Timed:
        return timing.Timed({"A": samples}, "A", samples, {})

    monkeypatch.setattr(timing, "time_together", time_together)
    monkeypatch.setattr(latency.machine, "remarks", lambda each: [])
    protocol = dataclasses.replace(PROTOCOL, **changes)  # type: ignore[arg-type]
    return latency.measure({"A": Sleeper([], "A", 0.0)}, protocol)["A"]


def test_fps_counts_images_not_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    milliseconds = [8.0, 10.0, 10.0, 10.0, 10.0, 10.0, 90.0]
    assert record_of(monkeypatch, milliseconds).fps == pytest.approx(100)
    batch = record_of(monkeypatch, milliseconds, batch_size=4)
    assert (batch.fps, batch.batch_size) == (pytest.approx(400), 4)


def test_figures_of_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    record = record_of(monkeypatch, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 70.0])
    assert (record.median_ms.value, record.median_ms.low, record.median_ms.high) == (4, 1, 70)
    assert record.p95_ms == pytest.approx(6 + 0.7 * 64)
    assert record.samples_ms == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 70.0]
    assert (record.self_ratio.value, record.joules_per_image) == (1, None)
    assert any("unsteady" in warning for warning in record.warnings)


def test_noise_beyond_a_percent_is_said() -> None:
    def remark(value: float, half: float) -> list[str]:
        return latency._noise_remark(latency.Estimate(value, "ratio", 9, value - half, value + half))

    assert remark(1.02, 0.005) == ["a detector timed against itself differs by +2.0 %: too unsteady a machine"]
    assert remark(0.97, 0.005) != []
    assert remark(1.02, 0.015) == remark(1.009, 0.001) == remark(0.995, 0.001) == []


@pytest.mark.parametrize(
    ("share", "marked"),
    [([1.0] * 9 + [0.74], [9]), ([1.0] * 9 + [0.76], []), ([2.0] * 9 + [1.4], [9]), ([0.4] * 9 + [0.1], [])],
)
def test_what_lost_its_cpu(share: list[float], marked: list[int]) -> None:
    assert np.flatnonzero(timing.disturbed(np.array(share))).tolist() == marked


def test_energy_is_of_an_image() -> None:
    class Meter:
        spent = 0.0

        def joules(self) -> float:
            self.spent += 12.0
            return self.spent

    into = timing.Samples()
    protocol = dataclasses.replace(PROTOCOL, batch_size=4, window_seconds=1e-9)
    times = window(lambda: None, torch.device("cpu"), 0.0)
    timing._take(lambda images, seconds: times, torch.zeros(4, 3, 8, 8), protocol, Meter(), into)  # type: ignore[arg-type]
    assert into.joules == [3.0]  # 12 joules, one forward, four images


class Clock:
    """Stands still but when it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


def test_each_part_has_its_own_time_and_the_rest_is_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoder 2 + 3 s, of which 3 in the heads inside it; heads alone 3; 1 s outside of all."""
    clock = Clock(monkeypatch)

    class Takes(nn.Module):
        def __init__(self, seconds: float) -> None:
            super().__init__()
            self.weight, self.seconds = nn.Parameter(torch.ones(())), seconds

        def forward(self, images: Tensor) -> Tensor:
            clock.now += self.seconds
            return images

    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = Takes(3)
            self.encoder, self.rest = nn.Sequential(Takes(2), self.heads), Takes(1)
            self.parts = {"encoder": self.encoder, "heads": self.heads}

        def forward(self, images: Tensor, masks: None) -> Tensor:
            return self.rest(self.heads(self.encoder(images)))

    found = latency.by_part(Parts(), torch.zeros(1, 3, 8, 8), PROTOCOL)
    assert found == {"encoder": 5000, "heads": 3000, "other": 1000}


@pytest.mark.parametrize(
    ("milliseconds", "forwards"),
    [
        ([10.0] * 3 + [10.4] * 3 + [99.0] * 99, 6),  # two runs of three agree, and the time is up
        ([90.0] * 3 + [60.0] * 3 + [40.0] * 3 + [39.0] * 99, 12),  # goes on until two runs agree within 5 %
        ([1.0, 2.0, 3.0, 90.0, 80.0, 70.0] * 99, 60),  # never settles: ten times the time
    ],
)
def test_warm_up_ends_when_time_is_up_and_the_time_has_settled(
    monkeypatch: pytest.MonkeyPatch, milliseconds: list[float], forwards: int
) -> None:
    clock, taken = Clock(monkeypatch), iter(milliseconds)
    seen: list[float] = []

    def forward(images: object, seconds: float) -> tuple[float, float, float, int]:
        clock.now += 0.5
        seen.append(next(taken))
        return 0.0, seen[-1], 0.0, 1

    timing._warm_up(forward, torch.zeros(1), dataclasses.replace(PROTOCOL, warmup_seconds=3.0))
    assert len(seen) == forwards


def test_images_of_val2017_have_the_sizes_of_the_papers_transform() -> None:
    protocol = protocols.get("latency", "val2017")
    detectors = {"A": Sleeper([], "A").to(torch.float64)}
    images = timing._images(detectors, protocol, torch.device("cpu"), 0)["A"]
    assert (tuple(images.shape), images.dtype) == ((1, 3, 800, 1201), torch.float64)  # stored as 426 x 640


def test_protocols_are_what_their_names_say() -> None:
    rules = protocols.of("latency")
    for name, rule in rules.items():
        precision, batch = name.startswith("bfloat16"), re.search(r"batch(\d)$", name)
        mode = name.removeprefix("bfloat16").removesuffix(batch[0] if batch else "").strip("_")
        assert rule.precision == ("bfloat16" if precision else "float32")
        assert rule.batch_size == (int(batch[1]) if batch else 1)
        assert rule.mode == (mode if mode in MODES else "eager")
    assert [name for name, rule in rules.items() if rule.window_seconds] == ["sustained"]
    assert [name for name, rule in rules.items() if rule.sizes == "val2017"] == ["val2017"]
    assert {(rule.height, rule.width) for rule in rules.values()} == {(800, 1066)}


def test_one_that_fails_is_named_and_the_others_can_be_timed() -> None:
    class Failing(Sleeper):
        def forward(self, images: Tensor, masks: Tensor | None) -> SimpleNamespace:
            if len(self.log) > 20:
                raise ValueError("no more")
            return super().forward(images, masks)

    log: list[str] = []
    with pytest.raises(timing.CannotBeTimed) as failed:
        latency.measure({"A": Failing(log, "A", 0.0), "B": Sleeper([], "B", 0.0)}, PROTOCOL)
    assert (failed.value.name, str(failed.value.error)) == ("A", "no more")
