"""A detector that a worker of another interpreter runs, with the face of a module here."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detrbench.data.transforms import Eval, Stretch
from detrbench.external.detector import Adapted, ExternalDetector
from detrbench.external.interpreter import Worker
from detrbench.models.detections import Detections

# Threads that have computed wait for more to do, and keep their cores busy: 4 to 11 ms on two cores; see `window`.
_SPIN = 0.02


def detector(
    python: str,
    name: str,
    options: Mapping[str, Any],
    seed: int,
    weights: Path | None,
    patience: float | None,
) -> ExternalDetector:
    """The detector that a function of another interpreter makes.

    Args:
        python: that interpreter.
        name: of the function, `package.module:function`.
        options: its arguments.
        seed: of random weights.
        weights: a file that fills it.
        patience: seconds that it has for each answer; None: as many as it takes.

    Raises:
        UsageError: there is no such interpreter.
        WorkerFailed: it cannot be built there.
    """
    module = Remote(Worker(python, patience), name, options, seed, weights)
    said = module.said
    ids = said["category_ids"]
    return ExternalDetector(
        module,
        native=_native(said["native"] or {}),
        multiple=said["multiple"],
        detections=_detections if said["detects"] else None,
        category_ids=None if ids is None else dict(ids),
    )


def _native(said: Mapping[str, Any]) -> Eval | Stretch:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
    return Stretch(**values) if "height" in values else Eval(**values)


def of(detector: nn.Module) -> Remote | None:
    """What runs a detector in another interpreter; None for one that runs here."""
    module = detector.module if isinstance(detector, Adapted) else None
    return module if isinstance(module, Remote) else None


class Remote(nn.Module):
    """A detector in a worker, as a module.

    Its only parameter says which type and device the worker's module has; it has no values.

    Args:
        worker: that runs it.
        name: of the function that builds it, `package.module:function`.
        options: its arguments.
        seed: of random weights.
        weights: a file that fills it.

    Raises:
        WorkerFailed: it cannot be built there.
    """

    def __init__(self, worker: Worker, name: str, options: Mapping[str, Any], seed: int, weights: Path | None) -> None:
        super().__init__()
        self.worker = worker
        self._kept: set[tuple[int, ...]] = set()  # shapes of the images that the worker keeps
        self.placeholder = nn.Parameter(torch.empty(0), requires_grad=False)
        self.said: Mapping[str, Any] = worker.ask(
            "load",
            name=name,
            options=dict(options),
            seed=seed,
            weights=None if weights is None else str(weights),
            threads=torch.get_num_threads(),
        )

    def _apply(self, change: Callable[[Tensor], Tensor], recurse: bool = True) -> Remote:
        """As of any module, and the worker's moves along; on the meta device there is nothing to be moved."""
        super()._apply(change, recurse)
        device = self.placeholder.device
        if device.type != "meta":
            self.worker.ask("move", device=str(device))
            self._kept.clear()
        return self

    def forward(self, images: Tensor) -> list[dict[str, Any]] | None:
        """(B, 3, H, W) -> of each image its scores, labels and boxes (x1, y1, x2, y2 in pixels of it) as lists; None
        where the detector says nothing of detections.
        """
        found: list[dict[str, Any]] | None = self.worker.ask("detect", _bytes_of(images), shape=list(images.shape))
        return found

    @property
    def part_names(self) -> Mapping[str, str]:
        """Module name -> part, of all modules there that belong to one."""
        return dict(self.said["parts"])

    def count(self, sizes: Sequence[tuple[int, int]], as_one: Sequence[str]) -> dict[str, Any]:
        """Recordings of a forward of each (height, width), and whether values mattered; see `worker.recorder`.

        Args:
            sizes: height and width.
            as_one: what the name of a class contains whose modules count as one.
        """
        return dict(self.worker.ask("count", sizes=sizes, as_one=as_one))

    def parameters_there(self) -> list[tuple[list[str], int, bool]]:
        """All names, the size, and whether it is trained, of each parameter."""
        return [(names, size, trained) for names, size, trained in self.worker.ask("parameters")]

    def window(self, images: Tensor, seconds: float) -> tuple[float, float, float, int]:
        """What `worker.clock.window` finds there, on the cores that this process is on.

        Threads of the side that computed last, which wait for more to do, must not keep the other's cores busy.
        """
        self._keep(images)
        time.sleep(_SPIN)
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        found = self.worker.ask("window", shape=list(images.shape), seconds=seconds, cores=cores)
        time.sleep(_SPIN)
        device_ms, host_ms, cpu_ms, forwards = found
        return device_ms, host_ms, cpu_ms, forwards

    def by_part(self, images: Tensor, rounds: int) -> dict[str, float]:
        """What `worker.clock.by_part` finds there."""
        self._keep(images)
        return dict(self.worker.ask("by_part", shape=list(images.shape), rounds=rounds))

    def peaks(self, images: Tensor) -> tuple[float, float]:
        """Bytes: what a forward takes there, and the worker's process at its highest."""
        self._keep(images)
        forward, process = self.worker.ask("peaks", shape=list(images.shape))
        return forward, process

    def _keep(self, images: Tensor) -> None:
        """Has the worker keep a batch of that shape, once."""
        shape = tuple(images.shape)
        if shape not in self._kept:
            self.worker.ask("keep", _bytes_of(images), shape=list(shape))
            self._kept.add(shape)


def _bytes_of(images: Tensor) -> bytes:
    values = images.detach().float().cpu().contiguous()
    return ctypes.string_at(values.data_ptr(), values.numel() * values.element_size())


def _detections(out: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> list[Detections]:
    """What a worker says of each image, as tensors."""
    return [
        Detections(
            torch.tensor(image["scores"], dtype=torch.float64),
            torch.tensor(image["labels"]).long(),
            torch.tensor(image["boxes"], dtype=torch.float64).reshape(-1, 4),
        )
        for image in out
    ]
