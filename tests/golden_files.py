"""Finds the official models' reference outputs; they are not part of the project."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from detrbench import models
from detrbench.models.detector import Detector

PROJECT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("DETRBENCH_SHARED", PROJECT.parent / "shared"))
GOLDENS = SHARED / "goldens"

needs_goldens = pytest.mark.skipif(
    not GOLDENS.is_dir(), reason=f"no reference outputs in {GOLDENS} (set DETRBENCH_SHARED to the folder above them)"
)


@functools.cache
def seeded() -> ModuleType:
    """The module that makes the seeded weights and images the goldens were recorded with."""
    spec = importlib.util.spec_from_file_location("seeded", GOLDENS / "seeded.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def golden(name: str) -> dict[str, Any]:
    """One golden file."""
    return json.loads((GOLDENS / f"{name}.json").read_text())


def official_detector(golden_name: str, folder: Path, **create: Any) -> Detector:
    """A float64 detector that loaded the golden's official checkpoint."""
    path = folder / "official.pth"
    torch.save({"model": seeded().seeded_checkpoint(golden(golden_name)), "args": argparse.Namespace(lr=1e-4)}, path)
    detector = models.create(**create).double().eval()
    models.load_checkpoint(detector, path)
    return detector


def batch_of(case: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and masks of a golden's case."""
    images, masks = seeded().seeded_batch(case["images"])
    return images, torch.zeros_like(masks) if case["padding"].startswith("treated as valid") else masks


def targets_of(recorded: list[dict[str, Any]], count: int) -> list[dict[str, torch.Tensor]]:
    """The fixed targets of a golden's losses."""
    return [
        {"labels": torch.tensor(t["labels"]), "boxes": torch.tensor(t["boxes"], dtype=torch.float64).reshape(-1, 4)}
        for t in recorded[:count]
    ]


def relative_gap(ours: torch.Tensor, recorded: list[Any]) -> float:
    """Largest difference over the recorded part, relative to its largest magnitude."""
    theirs = torch.tensor(recorded, dtype=torch.float64)
    ours = ours[tuple(slice(0, n) for n in theirs.shape)]
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-12))
