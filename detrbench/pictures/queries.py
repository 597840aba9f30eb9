"""What queries look at, and how they move (Lite DETR, figure 5; DAC-DETR, figure 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from detrbench.pictures import overlay
from detrbench.pictures.scene import Paths, Sampling, Scene
from detrbench.pictures.sheet import BLUE, INK, LEVELS, ORANGE, Panel
from detrbench.pictures.tokens import show

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ARRIVED = ((BLUE, "ends on the object, IoU 0.5 or more"), (ORANGE, "ends elsewhere"))


def sampling(scene: Scene, layer: Sampling, query: int) -> Panel:
    """The points of one query: the larger, the more weight; coloured by level."""
    image = overlay.faint(overlay.enlarged(scene.pixels))
    box, locations, weights = layer.boxes[query], layer.locations[query], layer.weights[query]
    inside = ((locations >= box[:2]) & (locations <= box[2:])).all(-1)
    colours = _colours(layer)
    share = 100 * float((weights * inside).sum() / weights.sum())

    def draw(axes: Axes) -> None:
        show(axes, image)
        outline(axes, box, INK, 1.0)
        strength = weights / weights.max()
        for level in reversed(range(locations.shape[1])):  # fine ones on top
            x, y = locations[:, level].reshape(-1, 2).T
            near = strength[:, level].ravel()
            axes.scatter(x, y, s=1.5 + 26 * near, color=colours[level], edgecolors="white", linewidths=0.3)
        axes.plot(*layer.centres[query], marker="+", color=INK, markersize=7, markeredgewidth=1.3)

    says = f"{weights.size} points, {share:.0f} % of their weight in the object's box"
    return Panel(draw, scene.pixels.shape[0] / scene.pixels.shape[1], f"{share:.0f} % of the weight in the box", says)


def levels(scene: Scene, layer: Sampling) -> list[tuple[str, str]]:
    """The legend of sampling points: (colour, level), fine to coarse."""
    colours = _colours(layer)
    sizes = [f"{h} \N{MULTIPLICATION SIGN} {w} tokens" for h, w in scene.levels.tolist()]
    unseen = len(colours) - len(sizes)  # by the decoder, where an encoder hands on its coarse levels only
    words = ["finest level", *(f"level {i + 1}" for i in range(1, unseen))][:unseen]
    return list(zip(colours, [*words, *sizes], strict=True))


def _colours(layer: Sampling) -> list[str]:
    """Of each level; the coarsest has the last one, in every layer of a detector."""
    many = layer.locations.shape[2]
    return [LEVELS[(i - many) % len(LEVELS)] for i in range(many)]


def path(scene: Scene, paths: Paths, run: int) -> Panel:
    """The queries near an object from layer to layer; `run` 0 is the detector, 1 its decoder without self-attention."""
    image = overlay.faint(overlay.enlarged(scene.pixels))
    count = int(paths.on_target[run, -1])

    def draw(axes: Axes) -> None:
        show(axes, image)
        outline(axes, paths.target, INK, 1.2)
        for arrived, colour in ((False, ORANGE), (True, BLUE)):
            for query in np.flatnonzero(paths.arrived[run] == arrived):
                x, y = paths.centres[run, :, query].T
                axes.plot(x, y, color=colour, linewidth=0.8, alpha=0.75)
                axes.plot(x[-1:], y[-1:], "o", color=colour, markersize=3.2, markeredgewidth=0)

    title = f"{count} of {paths.num_queries} queries on it"
    says = f"{count} of {paths.num_queries} queries end on the object" + _by_layer(paths, run)
    return Panel(draw, scene.pixels.shape[0] / scene.pixels.shape[1], title, says)


def _by_layer(paths: Paths, run: int) -> str:
    counts = [str(count) for count in paths.on_target[run].tolist()]
    return f" (after each layer: {', '.join(counts)})" if len(counts) > 1 else ""


def outline(axes: Axes, box: np.ndarray, colour: str, width: float, dashed: bool = False) -> None:
    """A box's border, with a pale one under it so that it shows on any ground."""
    from matplotlib.patches import Rectangle

    corner, extent = tuple(box[:2]), box[2:] - box[:2]
    axes.add_patch(Rectangle(corner, *extent, fill=False, edgecolor="white", linewidth=width + 1.2, alpha=0.8))
    style = (0, (3, 2)) if dashed else "-"
    axes.add_patch(Rectangle(corner, *extent, fill=False, edgecolor=colour, linewidth=width, linestyle=style))
