"""The sizes of images: DETR's rule for a resized one, and the sides that training chooses from. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

# Pixels; DETR's `datasets/coco.py`, and every paper here after it.
SHORTEST, LONGEST = 800, 1333
TRAIN_SCALES = tuple(range(480, SHORTEST + 1, 32))
CROP_FROM = (400, 500, 600)  # short sides before a window is cut
CROP_RANGE = (384, 600)  # least and greatest side of the window


def in_proportion(sides: Iterable[int], shortest: int) -> tuple[int, ...]:
    """Sides meant for images of 800 pixels, for images of `shortest` pixels."""
    return tuple(round(side * shortest / SHORTEST) for side in sides)


def photograph_size(shortest: int, longest: int) -> tuple[int, int]:
    """(height, width) of a photograph of the usual 4:3, as timings take it, within these sides in pixels."""
    return shortest, min(shortest * 4 // 3, longest)


def resized_size(width: int, height: int, shortest: int, longest: int | None = None) -> tuple[int, int]:
    """(width, height) after bringing the short side to `shortest` pixels without the long side passing `longest`.

    DETR's rule (`get_size_with_aspect_ratio` of its `datasets/transforms.py`, kept by Deformable and Sparse DETR):
    where the cap acts, the short side becomes `longest * short / long` rounded half to even; the long side is then
    always truncated, so it may end one pixel below, or above, `longest`. detectron2 rounds instead of truncating,
    hence the sizes of detrex differ by a pixel here and there.
    """
    short, long = min(width, height), max(width, height)
    if longest is not None and long * shortest > longest * short:
        shortest = max(1, round(longest * short / long))
    resized_long = shortest * long // short
    return (shortest, resized_long) if width < height else (resized_long, shortest)
