"""How long one forward takes: several detectors timed in interleaved rounds, so that ratios survive a noisy machine.

`timing.py` times in one process; here its processes become records. Memory layout and placement differ between
processes, not between rounds, so intervals count processes where there are several.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detrbench import statistics
from detrbench.external.detector import remark_of
from detrbench.measure import machine, timing
from detrbench.measure.inference import Progress, evaluating
from detrbench.measure.parts import modules_by_part
from detrbench.measure.protocols.latency import LatencyProtocol
from detrbench.measure.timing import Samples, Timed
from detrbench.results.records import Estimate, Latency

PART_ROUNDS = 3
NOISE_MARGIN = 0.01  # a detector timed against itself should agree this well


def measure(
    detectors: Mapping[str, nn.Module],
    protocol: LatencyProtocol,
    progress: Progress | None = None,
    others: Callable[[int], Timed] | None = None,
) -> dict[str, Latency]:
    """Time the detectors against each other.

    Args:
        detectors: by id, all on the same device, each with the weights and in the type that it is evaluated with.
        protocol: input, mode, rounds, processes.
        progress: called after each round of this process.
        others: runs the same in a fresh process, given its number from 1; without it this process is the only one.

    Returns:
        A record for each id.

    Raises:
        ValueError: detectors on different devices.
        EnvironmentLacking: a mode that this device does not have.
    """
    found = [timing.time_together(detectors, protocol, progress)]
    found += [others(number) for number in range(1, protocol.processes)] if others is not None else []
    session, noise = uuid.uuid4().hex, _self_ratio(found)
    machines = [each.machine for each in found]
    remarks = list(dict.fromkeys(remark for each in machines for remark in machine.remarks(each)))
    remarks += _noise_remark(noise)
    return {
        name: _record(detector, protocol, [each.samples[name] for each in found], session, noise, remarks, machines)
        for name, detector in detectors.items()
    }


def _self_ratio(found: list[Timed]) -> Estimate:
    """How many times as long a detector takes as itself: what lies apart from 1 is noise."""
    twins = _undisturbed([each.twin for each in found])
    ratio = statistics.paired_ratio(twins, _undisturbed([each.samples[each.twin_of] for each in found]))
    return ratio.estimate("ratio", sum(map(len, twins)))


def _undisturbed(samples: list[Samples]) -> list[list[float]]:
    """Milliseconds by process and round; NaN where the sample lost its CPU to others."""
    marks, times = iter(_marks(samples)), [each.device_ms for each in samples]
    return [[float("nan") if next(marks) else value for value in each] for each in times]


def _marks(samples: list[Samples]) -> np.ndarray:
    """(samples,) bool: which lost their CPU to others. On a GPU the host only waits, and events count device time."""
    share = np.concatenate([each.share for each in samples])
    return np.zeros(len(share), dtype=bool) if samples[0].on_gpu else timing.disturbed(share)


def _noise_remark(noise: Estimate) -> list[str]:
    if noise.low is None or noise.high is None:
        return []
    if noise.low > 1 + NOISE_MARGIN or noise.high < 1 / (1 + NOISE_MARGIN):
        return [f"a detector timed against itself differs by {100 * (noise.value - 1):+.1f} %: too unsteady a machine"]
    return []


def _record(
    detector: nn.Module,
    protocol: LatencyProtocol,
    samples: list[Samples],
    session: str,
    noise: Estimate,
    remarks: list[str],
    machines: list[dict[str, Any]],
) -> Latency:
    parameter, (height, width) = next(detector.parameters()), timing.size_of(detector, protocol)
    flat = [value for each in samples for value in each.device_ms]
    middle = _middle(samples)
    joules = [value for each in samples for value in each.joules]
    marks = _marks(samples)
    return Latency(
        protocol=protocol.name,
        protocol_version=protocol.version,
        convention=protocol.convention + remark_of(detector),
        device=machine.name(parameter.device),
        dtype=str(parameter.dtype).removeprefix("torch."),
        batch_size=protocol.batch_size,
        height=height,
        width=width,
        threads=None if parameter.is_cuda else torch.get_num_threads(),
        median_ms=middle,
        p95_ms=statistics.percentile(flat, 0.95),
        fps=1000 * protocol.batch_size / middle.value,
        by_part_ms=_parts_of(detector, protocol),
        samples_ms=flat,
        warnings=[*remarks, *_own_remarks(samples, marks, flat)],
        processes=len(samples),
        session=session,
        mode=protocol.mode,
        host_ms=[value for each in samples for value in each.host_ms],
        cpu_ms=[value for each in samples for value in each.cpu_ms],
        marked=np.flatnonzero(marks).tolist(),
        self_ratio=noise,
        joules_per_image=float(np.median(joules)) if joules else None,
        machine=machines,
    )


def _middle(samples: list[Samples]) -> Estimate:
    """The median of undisturbed samples: of one process by order statistics, of several over processes."""
    times = _undisturbed(samples)
    clean = [value for each in times for value in each if value == value]
    if len(times) == 1:
        return statistics.median(clean, "ms")
    return statistics.of_processes(times).estimate("ms", len(clean))


def _own_remarks(samples: list[Samples], marks: np.ndarray, flat: list[float]) -> list[str]:
    """What makes these samples doubtful, in words."""
    remarks = []
    share = float(np.median(np.concatenate([each.share for each in samples])))
    if share < 0.8 and not samples[0].on_gpu:
        remarks.append(f"the process had a CPU for only {share:.0%} of the time: the machine is busy")
    retaken = sum(each.retaken for each in samples)
    if retaken > 0.1 * len(marks):
        remarks.append(f"{retaken} samples were taken again: other processes had the CPU")
    if marks.mean() > 0.1:
        remarks.append(f"{marks.sum()} of {len(marks)} samples took far longer than their CPU time explains: left out")
    if statistics.percentile(flat, 0.95) > 1.5 * float(np.median(flat)):
        remarks.append("unsteady: the 95th percentile is more than 1.5 times the median")
    return remarks


def _parts_of(detector: nn.Module, protocol: LatencyProtocol) -> dict[str, float]:
    """A compiled forward does not pass the borders between parts."""
    if protocol.mode not in ("eager", "optimised"):
        return {}
    images = timing.noise(protocol.batch_size, *timing.size_of(detector, protocol), protocol.seed)
    return by_part(timing.in_form(detector, protocol), images.to(next(detector.parameters())))


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
    parts = modules_by_part(detector)
    times = dict.fromkeys((part for part, _ in parts), 0.0)
    running: list[float] = []  # when each part that is running now began, outermost first

    def before(module: nn.Module, args: object) -> None:
        running.append(_now(device))

    def after(part: str) -> Callable[[nn.Module, object, object], None]:
        def stop(module: nn.Module, args: object, out: object) -> None:
            began = running.pop()
            if not running:
                times[part] += _now(device) - began

        return stop

    hooks = [module.register_forward_pre_hook(before) for _, module in parts]
    hooks += [module.register_forward_hook(after(part)) for part, module in parts]
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
