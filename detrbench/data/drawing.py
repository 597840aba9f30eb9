"""Outlines, textures and backgrounds of the generated images, drawn with Pillow and numpy.

All randomness comes from a `numpy.random.RandomState`, whose stream is frozen: the same seed gives the same draws
with every version of numpy. Colours are RGB from 0 to 255; canvases (H, W, 3) are float32 and changed in place.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Floats = npt.NDArray[np.floating]
Random = np.random.RandomState

SUPERSAMPLING = 4
"""Outlines are drawn so many times as large and averaged down, for smooth edges."""


def _regular(corners: int, radius: float = 1.0, turn: float = -90.0) -> Floats:
    """The corners (n, 2) of a regular polygon; the first points up."""
    angles = np.radians(turn + 360.0 * np.arange(corners) / corners)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32) * radius


def _star() -> Floats:
    return _regular(10) * np.where(np.arange(10) % 2 == 0, 1.0, 0.42).astype(np.float32)[:, None]


def _heart() -> Floats:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y], axis=1).astype(np.float32) / 16


def _crescent() -> Floats:
    """What a circle of radius 0.85 around (0.5, 0) leaves of the unit circle."""
    outer, inner = np.radians(np.linspace(58.2, 301.8, 40)), np.radians(np.linspace(271.9, 88.1, 30))
    x = np.concatenate([np.cos(outer), 0.5 + 0.85 * np.cos(inner)])
    y = np.concatenate([np.sin(outer), 0.85 * np.sin(inner)])
    return np.stack([x, y], axis=1)


def _points(*xy: tuple[float, float]) -> Floats:
    return np.array(xy, dtype=np.float32)


_CIRCLE = _regular(48)
_SQUARE = _points((-1, -1), (1, -1), (1, 1), (-1, 1))
_CROSS = _points(
    *((-0.34, -1), (0.34, -1), (0.34, -0.34), (1, -0.34), (1, 0.34), (0.34, 0.34)),
    *((0.34, 1), (-0.34, 1), (-0.34, 0.34), (-1, 0.34), (-1, -0.34), (-0.34, -0.34)),
)
_ARROW = _points((-1, -0.3), (0.1, -0.3), (0.1, -0.85), (1, 0), (0.1, 0.85), (0.1, 0.3), (-1, 0.3))

OUTLINES: dict[str, tuple[Floats, Floats | None]] = {
    "circle": (_CIRCLE, None),
    "square": (_SQUARE, None),
    "triangle": (_regular(3), None),
    "diamond": (_points((0, -1), (0.6, 0), (0, 1), (-0.6, 0)), None),
    "star": (_star(), None),
    "cross": (_CROSS, None),
    "heart": (_heart(), None),
    "arrow": (_ARROW, None),
    "ring": (_CIRCLE, _CIRCLE * np.float32(0.55)),
    "frame": (_SQUARE, _SQUARE * np.float32(0.55)),
    "crescent": (_crescent(), None),
    "hourglass": (_points((-0.8, -1), (0.8, -1), (-0.8, 1), (0.8, 1)), None),
}
"""For each class its outline (n, 2) within the unit circle or square, y downwards, and the hole in it, if any."""


def shape_mask(name: str, size: float, aspect: float, degrees: float) -> Floats:
    """How much of each pixel a shape covers, (h, w) in 0..1, in an array that fits the shape.

    Args:
        name: a key of `OUTLINES`.
        size: pixels of the longer side of the turned shape.
        aspect: width over height before it is turned.
        degrees: turn, clockwise.
    """
    outline, hole = OUTLINES[name]
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.array([[cos, sin], [-sin, cos]]) * np.array([[np.sqrt(aspect)], [1 / np.sqrt(aspect)]])
    outline = outline @ matrix
    low, extent = outline.min(axis=0), np.ptp(outline, axis=0)
    scale = size / extent.max()
    width, height = np.ceil(extent * scale - 1e-6).astype(int)
    holes = [] if hole is None else [(hole @ matrix - low) * scale]
    return _fill((outline - low) * scale, holes, int(width), int(height))


def blob_mask(rng: Random, size: float) -> Floats:
    """An irregular rounded patch about `size` pixels across, as `shape_mask` gives shapes."""
    corners = rng.randint(5, 9)
    outline = _regular(corners, turn=rng.uniform(0, 360)) * rng.uniform(0.35, 1.0, (corners, 1))
    outline = (outline - outline.min(axis=0)) * (size / 2)
    width, height = np.maximum(np.ceil(outline.max(axis=0)).astype(int), 1)
    return _fill(outline, [], int(width), int(height))


def _fill(outline: Floats, holes: list[Floats], width: int, height: int) -> Floats:
    image = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    draw = ImageDraw.Draw(image)
    for points, value in [(outline, 255), *((hole, 0) for hole in holes)]:
        draw.polygon([tuple(point) for point in (points * SUPERSAMPLING).tolist()], fill=value)
    return np.asarray(image.reduce(SUPERSAMPLING), dtype=np.float32) / 255


def _plain(rng: Random, x: Floats, y: Floats) -> Floats:
    return np.zeros(np.broadcast_shapes(x.shape, y.shape))


def _fade(rng: Random, x: Floats, y: Floats) -> Floats:
    angle = rng.uniform(0, 2 * np.pi)
    return ((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle) + 0.5).clip(0, 1)


def _speckle(rng: Random, x: Floats, y: Floats) -> Floats:
    return rng.random_sample(np.broadcast_shapes(x.shape, y.shape))


def _rows(rng: Random, x: Floats, y: Floats) -> Floats:
    return _half(y / rng.uniform(0.22, 0.36) + 0 * x)


def _columns(rng: Random, x: Floats, y: Floats) -> Floats:
    return _half(x / rng.uniform(0.22, 0.36) + 0 * y)


def _slashes(rng: Random, x: Floats, y: Floats) -> Floats:
    return _half((x + y) / rng.uniform(0.3, 0.5))


def _zigzag(rng: Random, x: Floats, y: Floats) -> Floats:
    period = rng.uniform(0.25, 0.36)
    return _half((y + np.abs(x % period - period / 2)) / period)


def _checks(rng: Random, x: Floats, y: Floats) -> Floats:
    period = rng.uniform(0.2, 0.32)
    return (x // period + y // period) % 2


def _grid(rng: Random, x: Floats, y: Floats) -> Floats:
    period = rng.uniform(0.25, 0.36)
    return np.maximum((x / period) % 1 < 0.25, (y / period) % 1 < 0.25).astype(np.float32)


def _dots(rng: Random, x: Floats, y: Floats) -> Floats:
    period = rng.uniform(0.25, 0.36)
    return (np.hypot(x % period - period / 2, y % period - period / 2) < 0.32 * period).astype(np.float32)


def _ripples(rng: Random, x: Floats, y: Floats) -> Floats:
    return _half(np.hypot(x - 0.5, y - 0.5) / rng.uniform(0.18, 0.26))


def _halves(rng: Random, x: Floats, y: Floats) -> Floats:
    return (x + 0 * y > rng.uniform(0.4, 0.6) * x.max()).astype(np.float32)


def _half(phase: Floats) -> Floats:
    """Bands: 1 in the first half of each whole number, 0 in the second."""
    return (phase % 1 < 0.5).astype(np.float32)


TEXTURES: dict[str, Callable[[Random, Floats, Floats], Floats]] = {
    "plain": _plain,
    "rows": _rows,
    "checks": _checks,
    "dots": _dots,
    "fade": _fade,
    "speckle": _speckle,
    "columns": _columns,
    "slashes": _slashes,
    "ripples": _ripples,
    "grid": _grid,
    "halves": _halves,
    "zigzag": _zigzag,
}
"""Each gives, from coordinates 0..1 across a patch, the share (h, w) of a second colour."""


def textured(rng: Random, texture: str, shape: tuple[int, ...], first: Floats, second: Floats) -> Floats:
    """A patch (h, w, 3) of two colours (3,) in the pattern of a texture."""
    longer = max(shape)
    x = (np.arange(shape[1], dtype=np.float32) / longer)[None, :]
    y = (np.arange(shape[0], dtype=np.float32) / longer)[:, None]
    share = TEXTURES[texture](rng, x, y).astype(np.float32)[..., None]
    return first.astype(np.float32) + share * (second - first).astype(np.float32)


def paste(canvas: Floats, mask: Floats, patch: Floats, left: int, top: int) -> None:
    """Lays a patch (h, w, 3) or a colour (3,) over the canvas where its mask (h, w) covers; may reach outside."""
    there, here = overlap(canvas.shape, mask.shape, left, top)
    below, cover = canvas[there], mask[here][..., None]
    below += cover * ((patch.astype(np.float32) if patch.ndim == 1 else patch[here]) - below)


def overlap(
    canvas: tuple[int, ...], patch: tuple[int, ...], left: int, top: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a patch placed at (left, top) meets the canvas, in coordinates of the canvas and of the patch."""
    x1, x2 = max(left, 0), max(min(left + patch[1], canvas[1]), 0)
    y1, y2 = max(top, 0), max(min(top + patch[0], canvas[0]), 0)
    return (slice(y1, y2), slice(x1, x2)), (slice(y1 - top, y2 - top), slice(x1 - left, x2 - left))


def background(rng: Random, width: int, height: int, clutter: float) -> Floats:
    """A canvas (height, width, 3): a muted colour fading into another, with clouds that grow with `clutter`."""
    base = rng.uniform(60, 195) + rng.uniform(-30, 30, 3)
    first, second = base + rng.uniform(-25, 25, 3), base + rng.uniform(-25, 25, 3)
    canvas = textured(rng, "fade", (height, width), first, second)
    coarse = Image.fromarray(rng.randint(0, 256, (6, 6)).astype(np.uint8))
    clouds = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32) / 255 - 0.5
    return canvas + np.float32(70 * clutter) * clouds[..., None]


def draw_line(rng: Random, canvas: Floats, width: int) -> None:
    """A straight line of `width` pixels and random colour, somewhere."""
    x1, x2 = sorted(int(x) for x in rng.randint(0, canvas.shape[1], 2))
    y1, y2 = sorted(int(y) for y in rng.randint(0, canvas.shape[0], 2))
    image = Image.new("L", (x2 - x1 + 2 * width, y2 - y1 + 2 * width))  # no larger than the line: pasting is slow
    ends = [(width, width), (x2 - x1 + width, y2 - y1 + width)]
    if rng.random_sample() < 0.5:
        ends = [(width, y2 - y1 + width), (x2 - x1 + width, width)]
    ImageDraw.Draw(image).line(ends, fill=255, width=width)
    paste(canvas, np.asarray(image, dtype=np.float32) / 255, rng.uniform(20, 235, 3), x1 - width, y1 - width)


def contrasting(rng: Random, against: Floats, least: float) -> Floats:
    """A random colour (3,) that differs from another by at least `least`, at most 117, in some channel."""
    while True:
        colour = rng.uniform(10, 245, 3)
        if np.abs(colour - against).max() >= least:
            return colour
