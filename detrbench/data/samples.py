"""What a data set hands out. Boxes are numpy here; `transforms.py` turns them into tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image


@dataclass(frozen=True)
class Category:
    """A class of objects: `id` is the data set's own number for it, not the label a detector is trained on."""

    id: int
    name: str


@dataclass(frozen=True)
class Target:
    """The n annotated objects of one image.

    Attributes:
        labels: (n,) int64.
        boxes: (n, 4) float32, x1 y1 x2 y2 in pixels, clamped to the image, none empty.
        iscrowd: (n,) bool; a crowd box covers many objects: never a training target, ignored in evaluation.
        area: (n,) float32, pixels^2 of the object (not of its box), which decides small, medium or large.
    """

    image_id: int
    labels: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    iscrowd: npt.NDArray[np.bool_]
    area: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """One image as stored, with its objects; `height` and `width` are those of the image in pixels."""

    image: Image.Image
    target: Target
    height: int
    width: int


def class_names(dataset: Dataset) -> dict[int, str]:
    """Label -> class; labels that stand for no category of the data set are "class N"."""
    by_id = {category.id: category.name for category in dataset.categories}
    names = {}
    for label in range(dataset.num_classes):
        try:
            names[label] = by_id.get(dataset.to_category_id(label), f"class {label}")
        except LookupError:
            names[label] = f"class {label}"
    return names


class Dataset(Protocol):
    """What training and measuring need of a data set; ids ascend and index i is the i-th id."""

    image_ids: list[int]
    categories: list[Category]

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """(N, 2) width and height of the images in pixels."""

    @property
    def num_classes(self) -> int:
        """Class logits that a detector for this data set needs: labels are below it."""

    @property
    def fingerprint(self) -> str:
        """sha256 of everything the samples depend on; for COCO annotations, selection, and every byte of the images."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def coco_ground_truth(self) -> dict[str, Any]:
        """`images`, `annotations` (crowd included) and `categories` of these images, as COCO's JSON has them."""

    def to_category_id(self, label: int) -> int:
        """The category id that a label stands for."""
