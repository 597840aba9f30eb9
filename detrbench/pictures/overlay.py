"""Values of tokens laid over an image, as RGB arrays. Shapes: h x w pixels, H x W cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import ImageColor

from detrbench.pictures.scene import Array

LEAST = 480  # longest side that small images are enlarged to, so that the borders of cells stay sharp


def enlarged(pixels: Array) -> Array:
    """(h, w, 3) uint8 at least `LEAST` long, by whole steps and without smoothing."""
    step = max(1, round(LEAST / max(pixels.shape[:2])))
    return pixels.repeat(step, 0).repeat(step, 1)


def veiled(pixels: Array) -> Array:
    """(h, w, 3) float: the image as a pale grey ground, on which colours show."""
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    return np.repeat((255 - 0.3 * (255 - grey))[..., None], 3, 2)


def faint(pixels: Array) -> Array:
    """(h, w, 3) uint8: the image in light colours, on which lines and points show."""
    return _rgb(255 - 0.36 * (255.0 - pixels))


def spread(cells: Array, shape: Sequence[int]) -> Array:
    """(H, W) -> (h, w): each cell over the pixels that it stands for."""
    rows, columns = ((np.arange(many) + 0.5) * cells.shape[axis] / many for axis, many in enumerate(shape[:2]))
    return cells[rows.astype(int)][:, columns.astype(int)]


def cleared(pixels: Array, share: Array) -> Array:
    """(h, w, 3) uint8: the image itself where (h, w) `share` is 1, its pale ground where it is 0."""
    ground = veiled(pixels)
    return _rgb(ground + (pixels - ground) * share[..., None])


def coloured(pixels: Array, strength: Array, colour: str) -> Array:
    """(h, w, 3) uint8: a colour over the pale ground, as opaque as (h, w) `strength` in 0..1 says."""
    return mixed(pixels, strength, np.ones_like(strength), colour, colour)


def mixed(pixels: Array, strength: Array, share: Array, full: str, empty: str) -> Array:
    """As `coloured`, in a colour between `empty` and `full` as (h, w) `share` in 0..1 says."""
    one, other = (np.array(ImageColor.getrgb(colour), float) for colour in (full, empty))
    colour = other + (one - other) * share[..., None]
    ground = veiled(pixels)
    return _rgb(ground + (colour - ground) * strength[..., None])


def _rgb(values: Array) -> Array:
    return np.rint(values.clip(0, 255)).astype(np.uint8)
