"""DETR's rule for the size of a resized image, in integers."""

from __future__ import annotations


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
