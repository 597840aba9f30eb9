"""Detections, against ground truth where there is some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from detrbench.pictures import overlay
from detrbench.pictures.queries import outline
from detrbench.pictures.scene import Array, Objects, Scene
from detrbench.pictures.sheet import BLUE, GREEN, ORANGE, RED, Panel
from detrbench.pictures.tokens import show

if TYPE_CHECKING:
    from matplotlib.axes import Axes

IOU = 0.5
NAMED = 12  # objects that are given their names; more would cover the image
LEGEND = ((GREEN, "found"), (ORANGE, "false detection"), (RED, "missed"))


def detections(scene: Scene, threshold: float, points: float = 5.6) -> Panel:
    """Boxes with at least that score, named in letters of that size; with ground truth: found, false, missed."""
    found = scene.found.above(threshold)
    pixels = overlay.enlarged(scene.pixels)
    if scene.truth is None:
        hits, missed = np.zeros(len(found.boxes), bool), None
        title = says = _count(len(found.boxes), "detection")
        colours = {False: BLUE}
    else:
        hits, met = match(found, scene.truth)
        missed = scene.truth.boxes[~met]
        false = int((~hits).sum())
        title = f"{met.sum()} of {met.size} found, {false} false"
        says = f"{met.sum()} of {met.size} objects found, {_count(false, 'false detection')}"
        colours = {True: GREEN, False: ORANGE}

    def draw(axes: Axes) -> None:
        show(axes, pixels)
        for box in missed if missed is not None else ():
            outline(axes, box, RED, 1.3, dashed=True)
        _draw_found(axes, scene, found, hits, colours, points)

    return Panel(draw, pixels.shape[0] / pixels.shape[1], title, says)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _draw_found(
    axes: Axes, scene: Scene, found: Objects, hits: Array, colours: Mapping[bool, str], points: float
) -> None:
    for index in reversed(range(len(found.boxes))):  # the best on top
        colour, (x, y) = colours[bool(hits[index])], found.boxes[index, :2]
        outline(axes, found.boxes[index], colour, 1.3)
        if len(found.boxes) <= NAMED:
            text = f"{scene.named(found.labels[index])} {found.scores[index]:.2f}"
            ground = {"facecolor": colour, "edgecolor": "none", "pad": 1.2}
            axes.text(max(x, 0) + 0.01, max(y, 0.03), text, fontsize=points, color="white", va="bottom",
                      bbox=ground, clip_on=True)  # fmt: skip


def match(found: Objects, truth: Objects) -> tuple[Array, Array]:
    """Which detections hit and which objects are met: best first, same class, IoU of at least 0.5, each object once."""
    hits, met = np.zeros(len(found.boxes), bool), np.zeros(len(truth.boxes), bool)
    overlaps = iou(found.boxes, truth.boxes)
    for index, label in enumerate(found.labels):
        free = np.where(~met & (truth.labels == label), overlaps[index], 0)
        if free.size and free.max() >= IOU:
            hits[index] = met[free.argmax()] = True
    return hits, met


def iou(one: Array, other: Array) -> Array:
    """(n, 4), (m, 4) boxes -> (n, m)."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    common = (high - low).clip(min=0).prod(-1)
    first, second = ((each[:, 2:] - each[:, :2]).clip(min=0).prod(-1) for each in (one, other))
    return common / np.maximum(first[:, None] + second[None] - common, 1e-12)
