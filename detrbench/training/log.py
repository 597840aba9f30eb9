"""The log of a training: a line of JSON every so many steps.

A line holds `step`, how many are done, `epoch`, what these are in epochs, and means since the line before: each loss
term and their weighted `total`; `gradient_norm` before clipping; `images_per_second`. Beside them `lr`, the highest
learning rate; `memory_mib`, the peak so far; `seconds` of training. In fp16 there are `loss_scale`, the factor on the
losses, and `overflows`: how many of these steps changed no weight, since their gradients were not finite; the mean norm
is that of the others. TensorBoard shows the same where it is asked for, terms under `loss/`, and the figures of each
evaluation under `evaluation/`.
"""

from __future__ import annotations

import json
import math
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detrbench.files import write_atomic
from detrbench.results.folder import read_lines
from detrbench.training.board import Board

EVERY = 20  # steps


class Log:
    """Gathers what steps give and writes it down.

    Args:
        path: of the lines; None writes nothing. What an earlier run wrote of steps that are done again is dropped.
        step: steps done so far.
        device: whose memory is told.
        board: a folder for TensorBoard; None writes nothing there.
    """

    def __init__(self, path: Path | None, step: int, device: str, board: Path | None = None) -> None:
        self.path, self.device, self.board = path, device, Board(board, step)
        self.sums: dict[str, float] = {}
        self.norms: list[Tensor] = []
        self.images, self.since = 0, time.monotonic()
        if path is not None:
            kept = [json.dumps(line) + "\n" for line in read_lines(path) if line.get("step", 0) <= step]
            write_atomic(path, "".join(kept))

    def add(self, losses: Mapping[str, float], norm: Tensor, images: int) -> None:
        """Takes in one step."""
        self.norms.append(norm)
        self.images += images
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def write(self, step: int, epoch: float, lr: float, seconds: float, scale: Mapping[str, float]) -> None:
        """Writes a line for the steps since the one before; `scale` is `Precision.figures`."""
        count, now = len(self.norms), time.monotonic()
        if self.path is None or not count:
            return
        norms = [norm for norm in torch.stack(self.norms).tolist() if math.isfinite(norm)]
        losses = {name: value / count for name, value in self.sums.items()}
        rest = {
            "lr": lr,
            "gradient_norm": sum(norms) / len(norms) if norms else None,
            "images_per_second": self.images / max(now - self.since, 1e-9),
            "memory_mib": peak_mib(self.device),
            "seconds": seconds,
        }
        if scale:
            rest |= {**scale, "overflows": count - len(norms)}
        self.append({"step": step, "epoch": epoch, **losses, **rest})
        self.board.add(step, {**{f"loss/{name}": value for name, value in losses.items()}, **rest})
        self.sums, self.norms, self.images, self.since = {}, [], 0, now

    def evaluated(self, step: int, figures: Mapping[str, float | None]) -> None:
        """Shows an evaluation's figures; the record of the training holds them by epoch."""
        self.board.add(step, {f"evaluation/{name}": value for name, value in figures.items()})

    def append(self, line: Mapping[str, Any]) -> None:
        """Writes any line."""
        if self.path is None:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def peak_mib(device: str) -> float:
    """The most memory in use so far, of the GPU or of this process."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # Linux counts KiB
