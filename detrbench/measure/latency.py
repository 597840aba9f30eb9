"""How long one forward takes: several detectors timed in interleaved rounds, so that ratios survive a noisy machine.

`timing.py` times in one process; here its processes become records. Memory layout and placement differ between
processes, not between rounds, so intervals count processes where there are several.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detrbench import statistics
from detrbench.external import remote
from detrbench.external.detector import remark_of
from detrbench.measure import machine, timing
from detrbench.measure.inference import Progress, evaluating
from detrbench.measure.parts import modules_by_part
from detrbench.measure.protocols.latency import LatencyProtocol
from detrbench.measure.timing import Samples, Timed
from detrbench.results.records import Estimate, Latency
from detrbench.worker import clock

PART_ROUNDS = 3
NOISE_MARGIN = 0.01  # a detector timed against itself should agree this well


def measure(
    detectors: Mapping[str, nn.Module],
    protocol: LatencyProtocol,
    progress: Progress | None = None,
    others: Callable[[int, Progress], Timed] | None = None,
) -> dict[str, Latency]:
    """Time the detectors against each other.

    Args:
        detectors: by id, all on the same device, each with the weights and in the type that it is evaluated with.
        protocol: input, mode, rounds, processes.
        progress: called with the rounds that are done and those of all processes.
        others: runs the same in a fresh process, given its number from 1, and tells of its rounds; without it this
            process is the only one.

    Returns:
        A record for each id.

    Raises:
        ValueError: detectors on different devices.
        EnvironmentLacking: a mode that this device does not have.
        CannotBeTimed: one of them failed; the others can be timed without it.
    """
    processes = 1 if others is None else protocol.processes

    def told(process: int) -> Progress:
        """What is told of the rounds of one process, as rounds of all."""
        return lambda done, rounds: progress(process * rounds + done, processes * rounds) if progress else None

    found = [timing.time_together(detectors, protocol, told(0))]
    found += [others(number, told(number)) for number in range(1, processes) if others is not None]
    session, noise = uuid.uuid4().hex, _self_ratio(found)
    machines = [each.machine for each in found]
    remarks = list(dict.fromkeys(remark for each in machines for remark in machine.remarks(each)))
    remarks += _noise_remark(noise)
    records = {}
    for name, detector in detectors.items():
        samples = [each.samples[name] for each in found]
        with timing.blaming(name):
            records[name] = _record(detector, protocol, samples, session, noise, remarks, machines)
    return records


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
        dtype=timing.computed_in(detector, protocol),
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
    return by_part(timing.in_form(detector, protocol), images.to(next(detector.parameters())), protocol)


def by_part(detector: nn.Module, images: Tensor, protocol: LatencyProtocol) -> dict[str, float]:
    """Median milliseconds of each part in the protocol's precision, and "other"; see `worker.clock.by_part`."""
    elsewhere = remote.of(detector)
    if elsewhere is not None:
        return elsewhere.by_part(images, PART_ROUNDS)
    with evaluating(detector):
        run = timing.forward(detector, protocol)
        return clock.by_part(lambda: run(images), modules_by_part(detector), images.device, PART_ROUNDS)
