"""A suite small enough for tests, and steps that cost nothing in place of the real ones; `terminal` sets them up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from detrbench import cli

SUITE = """\
name: demo
title: A demonstration
defaults: {backbone: tiny}
variants:
  - {id: "sparse-{keep_ratio}", model: sparse_detr_r50, matrix: {keep_ratio: [0.1, 0.3]}}
  - {id: later, published_only: true}
  - {id: old, model: null, published_only: true}
scales:
  smoke: {data: shapes, num_train: 4, num_val: 2, image_size: 64, epochs: 2}
  paper: {data: coco}
default_scale: smoke
measure: [complexity, accuracy, latency, memory, dam]
"""


@dataclass
class Terminal:
    """A directory with a suite, the calls that steps received, and how a command is typed in it."""

    folder: Path
    capture: pytest.CaptureFixture[str]
    calls: list[tuple[str, str]] = field(default_factory=list)
    before: Callable[[str, str], None] = lambda cell, measure: None

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def type(self, *arguments: str) -> tuple[int, str, str]:
        """(exit code, stdout, stderr) of a command."""
        self.calls.clear()
        code = cli.main(arguments)
        captured = self.capture.readouterr()
        return code, captured.out, captured.err

    def take(self, item: Any, device: str, open_data: Any, report: Any) -> dict[str, Any]:
        """In place of `steps.take`."""
        self.calls.append((item.cell.id, item.measure))
        self.before(item.cell.id, item.measure)
        if item.measure == "training":
            item.folder.weights.write_bytes(b"weights")
            report(1.0, "epoch 2/2, loss 1.00", milestone=True)
        names = ["common"] if item.measure == "training" else item.cell.protocols_of(item.measure)
        return {name: {"figure": len(item.cell.id)} for name in names}

    def load_and_try(self, item: Any, device: str, open_data: Any, limit: float, processes: int | None = None) -> Any:
        self.before(item.cell.id, "loading")
        return object()

    def take_latency(
        self, ready: dict[str, Any], device: str, report: Any, open_data: Any, processes: int | None = None
    ) -> dict[str, Any]:
        self.calls.append((" ".join(ready), "latency" if processes is None else f"latency in {processes} processes"))
        self.before(" ".join(ready), "latency")
        return {id_: {"common": {"median_ms": {"value": 1.0, "unit": "ms", "n": 1}}} for id_ in ready}


@dataclass
class FakeData:
    """In place of a data set."""

    fingerprint: str = "f" * 64

    def __len__(self) -> int:
        return 4


# Of a detector that is small even for tests, as `--set` and `tiny_weights` take them.
TINY = ["hidden_dim=32", "ffn_dim=32", "num_queries=8", "num_encoder_layers=1", "num_decoder_layers=1"]


def tiny_weights(model: str, settings: list[str], folder: Path) -> Path:
    """Random weights of a model with those `key=integer` settings, saved."""
    from detrbench import models

    path = folder / "tiny.safetensors"
    pairs = (pair.partition("=") for pair in settings)
    models.save_checkpoint(models.create(model, **{key: int(value) for key, _, value in pairs}), path)
    return path
