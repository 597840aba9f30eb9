"""How long one forward takes: several detectors timed in interleaved rounds, so that ratios survive a noisy machine.

Each round runs every detector once, in an order shuffled anew (seeded): A B C, B C A, ... A slow spell of the machine
then hits all of them. Raw samples are kept, in milliseconds.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from detrbench import statistics
from detrbench.measure import gpu
from detrbench.measure.accuracy import evaluating
from detrbench.measure.protocols import LatencyProtocol
from detrbench.records import Latency

STABLE = 0.05  # warm-up ends once two forwards in a row differ by less than this share
PART_ROUNDS = 3

Progress = Callable[[int, int], None]  # (rounds done, rounds in all)


def measure(
    detectors: Mapping[str, nn.Module], protocol: LatencyProtocol, progress: Progress | None = None
) -> dict[str, Latency]:
    """Time the detectors against each other.

    Args:
        detectors: by id, all on the same device, each with the weights and in the type that it is evaluated with.
        protocol: image size, batch, rounds.
        progress: called after each round.

    Returns:
        A record for each id.

    Raises:
        ValueError: detectors on different devices.
    """
    device = _common_device(detectors)
    images = {name: _images(detector, protocol, device) for name, detector in detectors.items()}
    for name, detector in detectors.items():
        _warm_up(detector, images[name], protocol)
    with gpu.watched(device) as remarks:
        samples, busy = _rounds(detectors, images, protocol, progress)
    return {
        name: _record(detector, images[name], protocol, samples[name], remarks + _remarks(samples[name], busy[name]))
        for name, detector in detectors.items()
    }


def _common_device(detectors: Mapping[str, nn.Module]) -> torch.device:
    devices = {next(detector.parameters()).device for detector in detectors.values()}
    if len(devices) != 1:
        raise ValueError(f"expected detectors on one device, got {sorted(map(str, devices))}")
    return devices.pop()


def _images(detector: nn.Module, protocol: LatencyProtocol, device: torch.device) -> Tensor:
    """(B, 3, H, W) noise, the same for every detector; in the detector's type."""
    generator = torch.Generator().manual_seed(protocol.seed)
    images = torch.randn(protocol.batch_size, 3, protocol.height, protocol.width, generator=generator)
    return images.to(device, next(detector.parameters()).dtype)


def _warm_up(detector: nn.Module, images: Tensor, protocol: LatencyProtocol) -> None:
    """Run until the time settles, within the protocol's bounds."""
    before = float("inf")
    for done in range(1, protocol.warmup_max + 1):
        now, _ = _time_one(detector, images)
        if done >= protocol.warmup_min and abs(now - before) <= STABLE * before:
            return
        before = now


def _rounds(
    detectors: Mapping[str, nn.Module],
    images: Mapping[str, Tensor],
    protocol: LatencyProtocol,
    progress: Progress | None,
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """By id: milliseconds of each round, and the CPU time of the process over the wall time (CPU only)."""
    order, rng = list(detectors), random.Random(protocol.seed)
    samples: dict[str, list[float]] = {name: [] for name in detectors}
    busy: dict[str, list[float]] = {name: [] for name in detectors}
    for done in range(1, protocol.rounds + 1):
        rng.shuffle(order)
        for name in order:
            milliseconds, share = _time_one(detectors[name], images[name])
            samples[name].append(milliseconds)
            busy[name].append(share)
        if progress is not None:
            progress(done, protocol.rounds)
    return samples, busy


def _time_one(detector: nn.Module, images: Tensor) -> tuple[float, float]:
    """(milliseconds of one forward, CPU time over wall time): device events on a GPU, the wall clock elsewhere."""
    with evaluating(detector):
        if images.is_cuda:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize(images.device)
            start.record()
            detector(images, None)
            end.record()
            torch.cuda.synchronize(images.device)
            return start.elapsed_time(end), 1.0
        wall, cpu = time.perf_counter(), time.process_time()
        detector(images, None)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return 1000 * wall, cpu / wall


def _record(
    detector: nn.Module, images: Tensor, protocol: LatencyProtocol, samples: list[float], warnings: list[str]
) -> Latency:
    middle = statistics.median(samples, "ms")
    return Latency(
        protocol=protocol.name,
        protocol_version=protocol.version,
        convention=protocol.convention,
        device=gpu.name(images.device),
        dtype=str(images.dtype).removeprefix("torch."),
        batch_size=protocol.batch_size,
        height=protocol.height,
        width=protocol.width,
        threads=None if images.is_cuda else torch.get_num_threads(),
        median_ms=middle,
        p95_ms=statistics.percentile(samples, 0.95),
        fps=1000 * protocol.batch_size / middle.value,
        by_part_ms=by_part(detector, images),
        samples_ms=samples,
        warnings=warnings,
    )


def _remarks(samples: list[float], busy: list[float]) -> list[str]:
    """What makes these samples doubtful, in words."""
    remarks = []
    if float(np.median(busy)) < 0.8:
        remarks.append(f"the process had a CPU for only {np.median(busy):.0%} of the time: the machine is busy")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 1.5 * (os.cpu_count() or 1):
        remarks.append(f"load average {load:.1f} on {os.cpu_count()} CPUs: other processes run")
    if statistics.percentile(samples, 0.95) > 1.5 * float(np.median(samples)):
        remarks.append("unsteady: the 95th percentile is more than 1.5 times the median")
    return remarks


def by_part(detector: nn.Module, images: Tensor, rounds: int = PART_ROUNDS) -> dict[str, float]:
    """Median milliseconds of each part, and "other" for what runs outside of all, in passes of their own.

    A part that runs inside another (heads in the decoder, say) counts for the outer one. On a GPU every border between
    parts waits for the device, so the sum exceeds an uninstrumented forward somewhat.
    """
    taken = []
    for _ in range(rounds):
        with evaluating(detector), _stopwatches(detector, images.device) as times:
            start = _now(images.device)
            detector(images, None)
            times["other"] = _now(images.device) - start - sum(times.values())
        taken.append(times)
    return {part: 1000 * float(np.median([times[part] for times in taken])) for part in taken[0]}


@contextmanager
def _stopwatches(detector: nn.Module, device: torch.device) -> Iterator[dict[str, float]]:
    """Seconds by part of what runs inside the block; the dictionary fills as it runs."""
    parts: Mapping[str, nn.Module] = detector.parts  # type: ignore[assignment]
    times = dict.fromkeys(parts, 0.0)
    running: list[float] = []  # when each part that is running now began, outermost first

    def before(module: nn.Module, args: object) -> None:
        running.append(_now(device))

    def after(part: str) -> Callable[[nn.Module, object, object], None]:
        def stop(module: nn.Module, args: object, out: object) -> None:
            began = running.pop()
            if not running:
                times[part] += _now(device) - began

        return stop

    hooks = [module.register_forward_pre_hook(before) for module in parts.values()]
    hooks += [module.register_forward_hook(after(part)) for part, module in parts.items()]
    try:
        yield times
    finally:
        for hook in hooks:
            hook.remove()


def _now(device: torch.device) -> float:
    """Seconds, once the device has caught up."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
