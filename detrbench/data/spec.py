"""Which data: one frozen record, written in a suite as `{data: shapes, num_train: 2000, image_size: 128}`.

A suite takes its keys from these fields, so a new field here is a new key there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from detrbench.errors import DataError
from detrbench.files import at_home

MOST_IMAGES = 10_000_000  # to generate: what no memory can number

Kind = Literal["coco", "shapes"]
Labels = Literal["contiguous", "category_id"]
Split = Literal["train", "val"]


@dataclass(frozen=True)
class DataSpec:
    """A data set and how its images and labels are taken.

    Both kinds:
        kind: `coco` (a folder of annotated images, in any layout that is read) or `shapes` (generated). Called `data`
            in YAML.
        labels: `contiguous` numbers the categories 0, 1, ... by ascending id; `category_id` keeps COCO's own ids as
            labels, which is what 91-class official heads were trained on.
        keep_empty: keep training images without a usable box, as Deformable DETR's code does; detrex drops them.
            Images of the val split are always kept, since a detection on an empty image counts against precision.
        limit: only the first so many images of the split, by ascending id.

    `coco`:
        path: the folder.

    `shapes`:
        num_train, num_val: images in each split.
        image_size: longest side in pixels; the shorter one is 0.75 to 1 of it.
        seed: another seed gives other images of the same distribution.
        max_objects: an image holds 1 to so many objects, as far as there is room.
        min_size: smallest object in pixels (longer side of its outline); the largest is 0.6 of the image.
        texture_cue: share of objects that wear the texture of their class, from 0 to 1; the others wear any. A detector
            learns textures sooner than outlines, so this sets how much can be learned in minutes.
        clutter: from 0 (plain backgrounds) to 1 (noise, distractor blobs, lines across objects, weak contrast).
    """

    kind: Kind
    path: Path | None = None
    labels: Labels = "contiguous"
    keep_empty: bool = True
    limit: int | None = None
    num_train: int = 2000
    num_val: int = 300
    image_size: int = 128
    seed: int = 0
    max_objects: int = 5
    min_size: int = 12
    texture_cue: float = 0.75
    clutter: float = 0.5

    def __post_init__(self) -> None:
        """Refuses what no data set can be made of.

        Raises:
            DataError: a value of the wrong type or out of range.
        """
        if self.path is not None:
            object.__setattr__(self, "path", at_home(self.path))
        _expect(self.kind in ("coco", "shapes"), "data", "'coco' or 'shapes'", self.kind)
        _expect(self.labels in ("contiguous", "category_id"), "labels", "'contiguous' or 'category_id'", self.labels)
        _expect(isinstance(self.keep_empty, bool), "keep_empty", "true or false", self.keep_empty)
        if self.limit is not None:
            _expect_int("limit", self.limit, 1)
        for name, least in (("num_train", 1), ("num_val", 1), ("image_size", 32), ("seed", 0), ("max_objects", 1)):
            _expect_int(name, getattr(self, name), least)
        for name in ("num_train", "num_val"):
            _expect(getattr(self, name) <= MOST_IMAGES, name, f"at most {MOST_IMAGES}", getattr(self, name))
        largest = int(0.6 * self.image_size)
        _expect_int("min_size", self.min_size, 4)
        _expect(self.min_size <= largest, "min_size", f"at most {largest} (0.6 of image_size)", self.min_size)
        for name in ("texture_cue", "clutter"):
            value = getattr(self, name)
            ok = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1  # false for NaN
            _expect(ok, name, "a number from 0 to 1", value)


def _expect(ok: bool, name: str, expected: str, found: object) -> None:
    if not ok:
        raise DataError(f"{name}: expected {expected}, found {found!r}")


def _expect_int(name: str, value: object, least: int) -> None:
    ok = isinstance(value, int) and not isinstance(value, bool) and value >= least
    _expect(ok, name, f"an integer of at least {least}", value)
