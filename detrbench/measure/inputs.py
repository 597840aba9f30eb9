"""Which images a complexity protocol counts: sizes only, since the work depends on nothing else. Imports no torch."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from detrbench.data.sizes import resized_size

Size = tuple[int, int]  # (height, width) in pixels


def detr_size(height: int, width: int, shortest: int = 800, longest: int | None = 1333) -> Size:
    """The size DETR's test transform resizes to: shortest side first, unless the longest would pass its cap."""
    new_width, new_height = resized_size(width, height, shortest, longest)
    return new_height, new_width


def detectron2_size(height: int, width: int, shortest: int = 800, longest: int = 1333) -> Size:
    """The size detectron2's `ResizeShortestEdge` (so detrex) resizes to: the same rule, both sides rounded."""
    scale = shortest / min(height, width)
    new_height, new_width = (shortest, scale * width) if height < width else (scale * height, shortest)
    cap = min(1.0, longest / max(new_height, new_width))
    return int(new_height * cap + 0.5), int(new_width * cap + 0.5)


@dataclass(frozen=True)
class Inputs:
    """The images that a complexity protocol counts: distinct (height, width) and how many images have it."""

    text: str
    sizes: Callable[[], Mapping[Size, int]]

    @staticmethod
    def single(height: int, width: int) -> Inputs:
        """One image of that size."""
        return Inputs(f"one {height}x{width} image", lambda: {(height, width): 1})

    @staticmethod
    def first_100(
        rule: Callable[[int, int, int, Any], Size] = detr_size, shortest: int = 800, longest: int | None = 1333
    ) -> Inputs:
        """The first 100 images of val2017 by id, each resized to shortest/longest pixels by that rule."""
        sides, rounding = f"{shortest}/{longest or 'no'}", rule.__name__.split("_")[0]
        text = f"mean over the first 100 images of COCO val2017 at {sides} ({rounding}'s rounding)"
        return Inputs(text, lambda: _resized_first_100(rule, shortest, longest))


@cache
def val2017_first_100() -> tuple[tuple[int, Size], ...]:
    """(image id, (height, width)) of the first 100 images of COCO val2017 by id."""
    # Source: the image records of COCO val2017 (facts; no image is contained).
    text = resources.files("detrbench.measure").joinpath("val2017_first100_sizes.csv").read_text()
    rows = csv.DictReader(text.splitlines())
    return tuple((int(row["image_id"]), (int(row["height"]), int(row["width"]))) for row in rows)


@cache
def _resized_first_100(
    rule: Callable[[int, int, int, Any], Size], shortest: int, longest: int | None
) -> Mapping[Size, int]:
    sizes = Counter(rule(height, width, shortest, longest) for _, (height, width) in val2017_first_100())
    return MappingProxyType(dict(sorted(sizes.items())))
