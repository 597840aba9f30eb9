"""A detector in this interpreter, and each question about it."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import building, clock, peak
from .recorder import Recorder


class Detector:
    """Built from a user's function, in eval mode; answers are JSON.

    Args:
        name: of the function, `package.module:function`.
        options: its arguments.
        seed: of random weights.
        weights: a file that fills the module.
        threads: that PyTorch computes with.
    """

    def __init__(self, name: str, options: Mapping[str, Any], seed: int, weights: str | None, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        self.built = building.build(name, options)
        if weights is not None:
            self.built.load(Path(weights))
        self.built.module.eval()
        self.device = torch.device("cpu")
        self._parts = building.modules_by_part(self.built)
        self._kept: dict[tuple[int, ...], Tensor] = {}
        self._cores: Sequence[int] = ()

    def describe(self) -> dict[str, Any]:
        """What the function said of the detector."""
        ids = self.built.category_ids
        return {
            "parts": building.part_names(self.built),
            "native": self.built.native,
            "multiple": self.built.multiple,
            "category_ids": None if ids is None else list(ids.items()),
            "detects": self.built.detects,
        }

    def move(self, device: str) -> None:
        """To another device."""
        self.device = torch.device(device)
        self.built.module.to(self.device)
        self._kept.clear()

    def parameters(self) -> list[tuple[list[str], int, bool]]:
        """All names, the size, and whether it is trained, of each parameter."""
        names: dict[Tensor, list[str]] = {}
        for name, parameter in self.built.module.named_parameters(remove_duplicate=False):
            names.setdefault(parameter, []).append(name)
        return [(known, each.numel(), each.requires_grad) for each, known in names.items()]

    def count(self, sizes: Sequence[Sequence[int]], as_one: Sequence[str]) -> dict[str, Any]:
        """A recording of one forward of each (height, width): on meta tensors, or, where these do not do, on noise."""
        try:
            on_meta = self.built.of(copy.deepcopy(self.built.module).to("meta"))
            return {"values": False, "recordings": [_recording(on_meta, size, as_one) for size in sizes]}
        except Exception:  # values matter, or it cannot be copied; a mistake of its own shows again
            return {"values": True, "recordings": [_recording(self.built, size, as_one) for size in sizes]}

    def keep(self, pixels: bytes, shape: Sequence[int]) -> None:
        """Keeps a batch of images for the questions that name its shape."""
        self._kept[tuple(shape)] = self._images(pixels, shape)

    def _images(self, pixels: bytes, shape: Sequence[int]) -> Tensor:
        """(B, 3, H, W) from the bytes of float32, in the detector's type."""
        flat = torch.frombuffer(bytearray(pixels), dtype=torch.float32)
        return flat.reshape(tuple(shape)).to(next(self.built.module.parameters()))

    @torch.inference_mode()
    def window(self, shape: Sequence[int], seconds: float, cores: Sequence[int]) -> Sequence[float]:
        """The time of forwards on kept images, on those cores; see `clock.window`."""
        self._pin(cores)
        images = self._kept[tuple(shape)]
        return clock.window(lambda: self.built.run(images), self.device, seconds)

    def _pin(self, cores: Sequence[int]) -> None:
        """Keeps all threads on these cores; none means wherever they are."""
        for thread in os.listdir("/proc/self/task") if cores and cores != self._cores else ():
            try:
                os.sched_setaffinity(int(thread), cores)
            except OSError:  # a thread that has just ended
                continue
        self._cores = cores

    @torch.inference_mode()
    def by_part(self, shape: Sequence[int], rounds: int) -> dict[str, float]:
        """The time of each part on kept images; see `clock.by_part`."""
        images = self._kept[tuple(shape)]
        return clock.by_part(lambda: self.built.run(images), self._parts, self.device, rounds)

    @torch.inference_mode()
    def peaks(self, shape: Sequence[int]) -> tuple[float, float]:
        """Bytes: what a forward on kept images takes, and the process at its highest."""
        images = self._kept[tuple(shape)]
        peak.reset_process_peak(self.device)
        forward = peak.peak(lambda: self.built.run(images), self.device)
        return forward, peak.process_peak(self.device)

    @torch.inference_mode()
    def detect(self, pixels: bytes, shape: Sequence[int]) -> list[dict[str, Any]] | None:
        """What is detected in each image: scores, labels, and boxes x1, y1, x2, y2 in pixels of it.

        None where the function said nothing of detections: then the images have been run, and that is all.
        """
        return self.built.detect(self._images(pixels, shape))


def _recording(built: building.Built, size: Sequence[int], as_one: Sequence[str]) -> dict[str, Any]:
    noise = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    images, recorder = noise.to(next(built.module.parameters())), Recorder(built.module, as_one)
    with recorder.watching():
        built.run(images)
    return recorder.found()
