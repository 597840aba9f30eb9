"""A detector as users have them, for tests: a function in a module of its own, which need not know detrbench.

`write(folder)` puts the module `own_detector_module` there. Its options: `words` are printed when it is built, and
`dies_after` forwards on values it kills itself; images as wide as `hangs_at` take it a minute.
"""

from __future__ import annotations

from pathlib import Path

MODULE = "own_detector_module"
SOURCE = f"factory:{MODULE}:build"
CODE = """
import os, signal, sys, time, types

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, dies_after, hangs_at):
        super().__init__()
        self.backbone = nn.Conv2d(3, 8, 8, stride=8)
        self.heads = nn.ModuleList([nn.Conv2d(8, 2, 1), nn.Conv2d(8, 4, 1)])
        self.left, self.hangs_at = dies_after, hangs_at

    def forward(self, images):
        if images.shape[-1] == self.hangs_at:
            time.sleep(60)
        if self.left is not None and not images.is_meta:
            self.left -= 1
            if self.left < 0:
                print("last words")
                os.kill(os.getpid(), signal.SIGKILL)
        features = self.backbone(images).relu()
        return [head(features).flatten(2).sigmoid() for head in self.heads]


def detections(out, size):
    height, width = size
    found = []
    for scores, boxes in zip(*out):
        best, labels = scores.max(0)
        x, y, w, h = boxes
        corners = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
        pixels = torch.tensor([width, height, width, height])
        found.append({"scores": best, "labels": labels, "boxes": corners * pixels})
    return found


def build(words="", dies_after=None, hangs_at=None):
    print(words)
    said = {"parts": {"backbone": "backbone", "heads": "heads"}, "multiple": 32}
    size = {"height": 64, "width": 96, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    if "detrbench_worker" in sys.modules:
        native = types.SimpleNamespace(**size)
        return types.SimpleNamespace(module=Net(dies_after, hangs_at), native=native, detections=detections, **said)
    from detrbench import external

    def as_ours(out, size):
        return [external.Detections(**each) for each in detections(out, size)]

    module, native = Net(dies_after, hangs_at), external.Stretch(**size)
    return external.ExternalDetector(module, native=native, detections=as_ours, **said)
"""


def write(folder: Path) -> Path:
    """Puts the module into a folder."""
    (folder / f"{MODULE}.py").write_text(CODE)
    return folder
