"""Timing several detectors against each other in this process: warm-up, then rounds in shuffled order.

Each round runs every detector once, in an order shuffled anew (seeded): A B C, B C A, ... A slow spell of the machine
then hits all of them. One of them takes part twice, as its own twin: what their times differ by is noise.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from detrbench import models
from detrbench.errors import EnvironmentLacking
from detrbench.external import remote
from detrbench.external.detector import Adapted
from detrbench.measure import machine
from detrbench.measure.inference import Progress, evaluating
from detrbench.measure.inputs import Size, detr_size, val2017_first_100
from detrbench.measure.protocols.latency import MODES, PRECISIONS, LatencyProtocol
from detrbench.models.export import RUNTIMES, TOLERANCE, differences, export_onnx
from detrbench.worker import clock

if TYPE_CHECKING:
    from detrbench.models.detector import Detector

STABLE = 0.05  # warm-up ends once the medians of two runs of forwards in a row differ by less than this share
SETTLING = 3  # forwards in such a run
LONGEST_WARMUP = 10  # times the protocol's warm-up time

DISTURBED = 0.75  # a sample whose share of CPU is below this part of the best ones' lost its CPU to other processes

RETAKES = 5  # how often such a sample is taken again at once

Run = Callable[[Tensor], Any]
# Writing one takes half a minute: what was tried is what is timed. By runtime and shape of the images.
_EXPORTED: WeakKeyDictionary[nn.Module, dict[tuple[str, tuple[int, ...]], Run]] = WeakKeyDictionary()
Window = Callable[[Tensor, float], tuple[float, float, float, int]]  # (images, seconds) -> see `worker.clock.window`


class CannotBeTimed(Exception):
    """One of several detectors failed while they were timed together, or got ready for that.

    Args:
        name: of that one.
        error: what it raised.
    """

    def __init__(self, name: str, error: Exception) -> None:
        super().__init__(name, error)
        self.name, self.error = name, error


@contextlib.contextmanager
def blaming(name: str) -> Iterator[None]:
    """Whatever a detector of that name raises inside the block is a `CannotBeTimed`."""
    try:
        yield
    except Exception as error:
        raise CannotBeTimed(name, error) from error


@dataclass
class Samples:
    """Of one detector, one entry a round: milliseconds of a forward by device events (CPU: wall clock), by the host's
    wall clock, CPU time of all threads; joules an image where the GPU tells. `retaken` counts samples that were
    thrown away because other processes had the CPU.
    """

    on_gpu: bool = False
    device_ms: list[float] = field(default_factory=list)
    host_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)
    retaken: int = 0

    @property
    def share(self) -> np.ndarray:
        """(rounds,) CPU time of all threads over wall time."""
        return np.array(self.cpu_ms) / np.maximum(np.array(self.host_ms), 1e-9)


def disturbed(share: np.ndarray) -> np.ndarray:
    """(samples,) bool: wall clock far beyond what CPU time explains, against the best tenth of the same detector.

    Where even those mostly wait (for a disk, a lock, a sleep), waiting is part of the work and nothing is marked.
    """
    best = float(np.quantile(share, 0.9)) if len(share) else 0.0
    return np.asarray(share < DISTURBED * best) if best > 0.5 else np.zeros(len(share), dtype=bool)


@dataclass
class Timed:
    """What one process found: samples by detector, those of the twin of `twin_of`, and how the machine was."""

    samples: dict[str, Samples]
    twin_of: str
    twin: Samples
    machine: dict[str, Any]


def time_together(
    detectors: Mapping[str, nn.Module], protocol: LatencyProtocol, progress: Progress | None = None, process: int = 0
) -> Timed:
    """Time the detectors in interleaved rounds.

    Args:
        detectors: by id, all on one device, each with the weights and in the type that it is evaluated with.
        protocol: input, mode, rounds.
        progress: called when all are warm, with 0 rounds, and after each round.
        process: number of this process; shuffles in another order.

    Raises:
        ValueError: detectors on different devices.
        EnvironmentLacking: a mode that this device does not have.
        CannotBeTimed: one of them failed; the others can be timed without it.
    """
    device = common_device(detectors)
    samples, twin_of = {name: Samples(device.type == "cuda") for name in detectors}, next(iter(detectors))
    twin, rng = Samples(device.type == "cuda"), random.Random(protocol.seed + process)
    with contextlib.ExitStack() as stack:
        stack.enter_context(machine.pinned(device))
        for detector in detectors.values():
            stack.enter_context(evaluating(detector))
        # The inputs of a round are made before it is timed; a graph or a compiled detector has one fixed input.
        inputs = [_images(detectors, protocol, device, index) for index in range(_num_sizes(protocol))]
        windows = {name: _window(detector, inputs[0][name], protocol) for name, detector in detectors.items()}
        for name, window in windows.items():
            with blaming(name):
                _warm_up(window, inputs[0][name], protocol)
        watch = machine.Watch(device)
        order: list[str | None] = [*windows, None]
        if progress is not None:
            progress(0, protocol.rounds)
        for done in range(protocol.rounds):
            rng.shuffle(order)
            for slot in order:
                name, into = (twin_of, twin) if slot is None else (slot, samples[slot])
                with blaming(name):
                    _time_one(windows[name], inputs[done % len(inputs)][name], protocol, watch, into)
            watch.again()
            if progress is not None:
                progress(done + 1, protocol.rounds)
        return Timed(samples, twin_of, twin, watch.summary())


def common_device(detectors: Mapping[str, nn.Module]) -> torch.device:
    """The device that all are on; ValueError where there are several."""
    devices = {next(detector.parameters()).device for detector in detectors.values()}
    if len(devices) != 1:
        raise ValueError(f"expected detectors on one device, got {sorted(map(str, devices))}")
    return devices.pop()


def _num_sizes(protocol: LatencyProtocol) -> int:
    return min(protocol.rounds, len(val2017_first_100())) if protocol.sizes == "val2017" else 1


def _images(
    detectors: Mapping[str, nn.Module], protocol: LatencyProtocol, device: torch.device, index: int
) -> dict[str, Tensor]:
    """(B, 3, H, W) noise, the same for every detector of that size and type."""
    made: dict[tuple[Size, torch.dtype], Tensor] = {}
    found = {}
    for name, detector in detectors.items():
        varied = protocol.sizes == "val2017"
        size = detr_size(*val2017_first_100()[index][1]) if varied else size_of(detector, protocol)
        key = size, next(detector.parameters()).dtype
        if key not in made:
            made[key] = noise(protocol.batch_size, *size, protocol.seed).to(device, key[1])
        found[name] = made[key]
    return found


def size_of(detector: nn.Module, protocol: LatencyProtocol) -> Size:
    """(height, width) of the images on which a detector is timed, where all rounds have one size."""
    if protocol.sizes == "native" and isinstance(detector, Adapted):
        return detector.native_size
    return protocol.height, protocol.width


def noise(batch_size: int, height: int, width: int, seed: int) -> Tensor:
    """(B, 3, H, W) random images."""
    return torch.randn(batch_size, 3, height, width, generator=torch.Generator().manual_seed(seed))


def _window(detector: nn.Module, images: Tensor, protocol: LatencyProtocol) -> Window:
    """What times forwards of a detector, where it runs: here, or in another interpreter."""
    elsewhere = remote.of(detector)
    if elsewhere is None:
        run = _runner(detector, images, protocol)
        return lambda images, seconds: clock.window(lambda: run(images), images.device, seconds)
    if not protocol.as_it_is:
        how = f"{MODES[protocol.mode]}, in {PRECISIONS[protocol.precision]}"
        raise EnvironmentLacking(f"in another interpreter nothing is timed {how}")
    return elsewhere.window


def _runner(detector: nn.Module, images: Tensor, protocol: LatencyProtocol) -> Run:
    """The detector as the protocol's mode runs it."""
    detector = in_form(detector, protocol)
    if protocol.mode in RUNTIMES:
        return _exported(detector, images, protocol.mode)
    run = forward(torch.compile(detector, dynamic=False) if protocol.mode == "compiled" else detector, protocol)
    return _graphed(run, images) if protocol.mode == "cuda_graph" else run


def forward(detector: Callable[..., Any], protocol: LatencyProtocol) -> Run:
    """A forward without padding in the protocol's precision."""
    if protocol.precision == "float32":
        return lambda images: detector(images, None)
    dtype, graph = getattr(torch, protocol.precision), protocol.mode == "cuda_graph"

    def under_autocast(images: Tensor) -> Any:
        # A cast that is kept for later uses must not be shared between a graph and what runs outside of it.
        with torch.autocast(images.device.type, dtype, cache_enabled=not graph):
            return detector(images, None)

    return under_autocast


def computed_in(detector: nn.Module, protocol: LatencyProtocol) -> str:
    """The type of the large products: the detector's own, but for autocast."""
    own = str(next(detector.parameters()).dtype).removeprefix("torch.")
    return own if protocol.precision == "float32" else protocol.precision


def in_form(detector: nn.Module, protocol: LatencyProtocol) -> nn.Module:
    """The detector, or a copy of it in the form for inference where that is timed."""
    return models.for_inference(detector) if protocol.mode == "optimised" else detector


def try_mode(detector: nn.Module, protocol: LatencyProtocol) -> None:
    """Runs a detector once as the protocol does; raises whatever keeps it from that mode."""
    if not protocol.as_it_is:
        parameter = next(detector.parameters())
        images = noise(protocol.batch_size, *size_of(detector, protocol), protocol.seed).to(parameter)
        with evaluating(detector):
            _window(detector, images, protocol)(images, 0.0)


def _graphed(run: Run, images: Tensor) -> Run:
    """Replays one captured forward; work that waits for the device in the middle cannot be captured."""
    if not images.is_cuda:
        raise EnvironmentLacking("CUDA graphs need a CUDA device", hint="use the protocol `common` on a CPU")
    aside = torch.cuda.Stream(images.device)
    aside.wait_stream(torch.cuda.current_stream(images.device))
    with torch.cuda.stream(aside):
        for _ in range(3):  # lazy initialisation must be over before the capture
            run(images)
    torch.cuda.current_stream(images.device).wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = run(images)

    def replay(_: Tensor) -> Any:
        graph.replay()
        return kept

    return replay


def _exported(module: nn.Module, images: Tensor, runtime: str) -> Run:
    """The detector as an ONNX file in one of the runtimes, which has to predict what the detector does."""
    if images.is_cuda or images.dtype != torch.float32:
        raise EnvironmentLacking("an exported detector is timed on the CPU, in float32")
    detector, shape = cast("Detector", module), tuple(images.shape)
    made = _EXPORTED.setdefault(module, {})
    if (runtime, shape) in made:
        return made[runtime, shape]
    with torch.inference_mode(False), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "detector.onnx"
        batch_size, _, height, width = shape
        export_onnx(detector, path, batch_size, height, width)
        exported = RUNTIMES[runtime](path, torch.get_num_threads())
    off = float(differences(detector, exported, images).median())
    if off > TOLERANCE:
        raise EnvironmentLacking(f"the exported detector predicts something else: {off:.2g} apart in the median")
    made[runtime, shape] = exported
    return exported


def _warm_up(window: Window, images: Tensor, protocol: LatencyProtocol) -> None:
    """Run for the protocol's time and until the time settles, within a bound."""
    began, before = time.perf_counter(), float("inf")
    while True:
        now = float(np.median([window(images, 0.0)[1] for _ in range(SETTLING)]))
        elapsed = time.perf_counter() - began
        settled = elapsed >= protocol.warmup_seconds and abs(now - before) <= STABLE * before
        if settled or elapsed >= LONGEST_WARMUP * protocol.warmup_seconds:
            return
        before = now


def _time_one(window: Window, images: Tensor, protocol: LatencyProtocol, watch: machine.Watch, into: Samples) -> None:
    """One sample: a forward, or the mean forward of a window. One that lost its CPU to others is taken again."""
    for _ in range(RETAKES):
        _take(window, images, protocol, watch, into)
        if into.on_gpu or not disturbed(into.share)[-1]:
            return
        for values in (into.device_ms, into.host_ms, into.cpu_ms):
            values.pop()
        into.retaken += 1
    _take(window, images, protocol, watch, into)


def _take(window: Window, images: Tensor, protocol: LatencyProtocol, watch: machine.Watch, into: Samples) -> None:
    before = watch.joules() if protocol.window_seconds is not None else None
    device_ms, host_ms, cpu_ms, forwards = window(images, protocol.window_seconds or 0.0)
    after = watch.joules() if before is not None else None
    if before is not None and after is not None:
        into.joules.append((after - before) / forwards / protocol.batch_size)
    into.device_ms.append(device_ms)
    into.host_ms.append(host_ms)
    into.cpu_ms.append(cpu_ms)
