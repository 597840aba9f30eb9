"""Which tokens the encoder keeps, and how much the decoder looks at them (Sparse DETR, Focus-DETR)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from detrbench.pictures import overlay
from detrbench.pictures.scene import Array, Scene
from detrbench.pictures.sheet import BLUE, ORANGE, RED, Panel, Picture, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What the colours of attention stand for.
ATTENTION = ((BLUE, "attention on kept tokens"), (ORANGE, "on tokens that were not kept"))


def kept(scene: Scene) -> Panel:
    """All levels and layers in one: the clearer a place, the more of its tokens (one a level) any layer updates."""
    pixels = overlay.enlarged(scene.pixels)
    levels = scene.by_level(scene.ever_kept.astype(float))
    share = np.mean([overlay.spread(level, pixels.shape) for level in levels], axis=0)
    count = f"{scene.ever_kept.sum()} of {scene.ever_kept.size} tokens"
    return panel(scene, overlay.cleared(pixels, share), count, f"{count} kept")


def kept_by_level(scene: Scene) -> Picture:
    """A row a level, a column for each run of layers that update the same tokens; the scores in front, if any.

    Tokens of a dual attention are dots.
    """
    pixels = overlay.enlarged(scene.pixels)
    runs = _runs(scene)
    rows = []
    for level, (height, width) in enumerate(scene.levels):
        row = [_scores(scene, pixels, level)] if scene.scores.size else []
        for words, layer in runs:
            cells = scene.by_level(scene.kept[layer])[level]
            dots = scene.by_level(scene.object_tokens[layer])[level] if len(scene.object_tokens) else cells & False
            row.append(_cells(scene, pixels, cells, dots, words if level == 0 else "", f"{height} x {width} tokens"))
        rows.append(row)
    sides = [f"{height} \N{MULTIPLICATION SIGN} {width}" for height, width in scene.levels]
    lead = f"{scene.name}: {scene.ever_kept.sum()} of {scene.ever_kept.size} tokens kept by any encoder layer."
    return sheet(rows, sides, lead, width=150)


def _runs(scene: Scene) -> list[tuple[str, int]]:
    """Layers that follow each other and update the same tokens: (how to call them, the first of them)."""
    chosen = np.concatenate([scene.kept, scene.object_tokens], axis=1) if len(scene.object_tokens) else scene.kept
    starts = [i for i in range(len(chosen)) if i == 0 or (chosen[i] != chosen[i - 1]).any()]
    runs = []
    for start, end in zip(starts, [*starts[1:], len(chosen)], strict=True):
        words = f"layer {start + 1}" if end == start + 1 else f"layers {start + 1} to {end}"
        runs.append(("all layers" if end - start == len(chosen) > 1 else words, start))
    return runs


def _cells(scene: Scene, pixels: Array, cells: Array, dots: Array, head: str, level: str) -> Panel:
    count = f"{cells.sum()} of {cells.size}"
    says = f"{level}: {count} kept" + (f", {dots.sum()} attend to each other" if dots.any() else "")
    image = overlay.cleared(pixels, overlay.spread(cells.astype(float), pixels.shape))

    def draw(axes: Axes) -> None:
        show(axes, image)
        y, x = np.nonzero(dots)
        size = min(16.0, 2400 / cells.size + 0.6)
        places = (x + 0.5) / cells.shape[1], (y + 0.5) / cells.shape[0]
        axes.scatter(*places, s=size, color=RED, edgecolors="white", linewidths=0.25)

    return Panel(draw, _aspect(scene), count, says, head)


def _scores(scene: Scene, pixels: Array, level: int) -> Panel:
    values = scene.by_level(scene.scores)[level]
    image = overlay.coloured(pixels, overlay.spread(values, pixels.shape), BLUE)
    title = f"{values.min():.2f} to {values.max():.2f}"
    return Panel(lambda axes: show(axes, image), _aspect(scene), title, f"scores {title}", "" if level else "score")


def attention(scene: Scene) -> Panel:
    """The decoder's attention of all levels in one: blue on kept tokens, orange on the others."""
    pixels = overlay.enlarged(scene.pixels)
    mass = scene.attention**2
    on_kept, on_all = (_density(scene, values, pixels) for values in (mass * scene.ever_kept, mass))
    share = np.divide(on_kept, on_all, out=np.ones_like(on_all), where=on_all > 0)
    strength = np.sqrt(on_all / max(on_all.max(), 1e-12))
    words = f"Corr {scene.corr:.2f}"
    says = f"{100 * scene.corr:.0f} % of the decoder's attention on kept tokens"
    return panel(scene, overlay.mixed(pixels, strength, share, BLUE, ORANGE), words, says)


def _density(scene: Scene, mass: Array, pixels: Array) -> Array:
    """(h, w) mass a pixel, over all levels."""
    levels = scene.by_level(mass)
    return np.sum([overlay.spread(level * level.size, pixels.shape) for level in levels], axis=0)


def attention_by_level(scene: Scene) -> Picture:
    """The decoder's attention on each level: blue on kept tokens, orange on the others."""
    pixels = overlay.enlarged(scene.pixels)
    row = []
    for level, (values, cells) in enumerate(
        zip(scene.by_level(scene.attention), scene.by_level(scene.ever_kept), strict=True)
    ):
        strength, on_kept = (overlay.spread(each, pixels.shape) for each in (values, cells.astype(float)))
        corr = scene.corr_by_level[level]
        figure = "no attention" if np.isnan(corr) else f"Corr {corr:.2f}"
        title = f"{100 * scene.shares[level]:.0f} % of it, {figure}"
        says = f"{cells.shape[0]} x {cells.shape[1]} tokens get {title}"
        head = f"{cells.shape[0]} \N{MULTIPLICATION SIGN} {cells.shape[1]} tokens"
        image = overlay.mixed(pixels, strength, on_kept, BLUE, ORANGE)
        row.append(panel(scene, image, title, says, head))
    lead = f"{scene.name}: {100 * scene.corr:.0f} % of the decoder's attention falls on kept tokens."
    return sheet([row], lead=lead, legend=ATTENTION)


def panel(scene: Scene, image: Array, title: str, says: str, head: str = "") -> Panel:
    """A panel with nothing but an image."""
    return Panel(lambda axes: show(axes, image), _aspect(scene), title, says, head)


def show(axes: Axes, image: Array) -> None:
    """An image over the whole panel."""
    axes.imshow(image, extent=(0, 1, 1, 0), aspect="auto", interpolation="antialiased")


def _aspect(scene: Scene) -> float:
    height, width = scene.pixels.shape[:2]
    return height / width
