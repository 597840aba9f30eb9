"""Detectors that tests take for somebody else's: a small one with weights, one that is a module alone, broken ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from detrbench import external


class Grid(nn.Module):
    """A box in each cell of a coarse grid, with a score for each of some classes."""

    def __init__(self, classes: int = 3, width: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 8, stride=8), nn.ReLU())
        self.heads = nn.ModuleList([nn.Conv2d(width, classes, 1), nn.Conv2d(width, 4, 1)])

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.body(images)
        scores, boxes = self.heads[0](features), self.heads[1](features)
        return {"scores": scores.flatten(2).sigmoid(), "boxes": boxes.flatten(2).sigmoid()}


def detections(out: dict[str, Tensor], size: tuple[int, int]) -> list[external.Detections]:
    """The best class of each cell, worst first: order is not its business."""
    height, width = size
    scale = torch.tensor([width, height, width, height], dtype=torch.float32)
    found = []
    for scores, boxes in zip(out["scores"], out["boxes"]):
        best, labels = scores.max(0)
        corners = torch.cat([boxes[:2] * 0.5, 0.5 + boxes[2:] * 0.5]).T * scale
        order = best.argsort()
        found.append(external.Detections(best[order], labels[order], corners[order]))
    return found


def grid(classes: int = 3, side: int = 32, **options: Any) -> external.ExternalDetector:
    return external.ExternalDetector(
        Grid(classes),
        parts={"body": "backbone", "heads": "heads"},
        native=external.Stretch(side, 2 * side),
        multiple=8,
        detections=detections,
        **options,
    )


def module() -> nn.Module:
    return Grid()


class NeedsValues(nn.Module):
    """Reads values as it is built and as it runs, in ways that meta tensors do not survive.

    Rates of drop path are often built so.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rates = [rate.item() for rate in torch.linspace(0, 0.1, 3)]
        self.body = nn.Conv2d(3, 4, 8, stride=8)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.body(images)
        return features * float(features.detach().numpy().max() > 0)


def needs_values() -> nn.Module:
    return NeedsValues()


def number() -> int:
    return 7


def broken() -> nn.Module:
    raise OSError("no weights\nin this folder")
