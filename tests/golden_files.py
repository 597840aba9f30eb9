"""The official models' recorded figures (`reference/official`), and detectors that carry their weights."""

from __future__ import annotations

import argparse
import functools
import json
import os
from pathlib import Path
from typing import Any

import torch
import yaml
from reference.seeded import seeded_batch, seeded_checkpoint

from detrbench import models
from detrbench.models.detector import Detector

PROJECT = Path(__file__).resolve().parents[1]
# Real images are not part of the project; tests that read them skip where this folder is missing.
SHARED = Path(os.environ.get("DETRBENCH_SHARED", PROJECT.parent / "shared"))
GOLDENS = Path(__file__).resolve().parent / "reference" / "official"
# Golden -> arguments of `models.create`.
CREATE: dict[str, dict[str, Any]] = yaml.safe_load((GOLDENS / "create.yaml").read_text())


@functools.cache
def golden(name: str) -> dict[str, Any]:
    """One golden file."""
    return json.loads((GOLDENS / f"{name}.json").read_text())


def official_detector(golden_name: str, folder: Path) -> Detector:
    """A float64 detector that loaded the golden's official checkpoint."""
    path = folder / "official.pth"
    torch.save({"model": seeded_checkpoint(golden(golden_name)), "args": argparse.Namespace(lr=1e-4)}, path)
    detector = models.create(**CREATE[golden_name]).double().eval()
    models.load_checkpoint(detector, path)
    return detector


def batch_of(case: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and masks of a golden's case."""
    images, masks = seeded_batch(case["images"])
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
