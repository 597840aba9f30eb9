"""Data sets in COCO's terms: folders of annotated images, in any of the layouts that are read.

Crowd annotations stay in the ground truth with `iscrowd` 1, where evaluation ignores what they match; training
never sees them. Boxes are clamped to the image, and those left without area are dropped, as DETR's code does.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from detrbench.data import contents, layouts
from detrbench.data.layouts.split import AnnotatedSplit
from detrbench.data.reading import read_image
from detrbench.data.samples import Sample, Target
from detrbench.data.spec import DataSpec, Labels, Split
from detrbench.errors import DataError


class CocoDataset:
    """The images of one split, by ascending image id.

    Args:
        split: as a layout's reader gives it.
        labels, limit: see `DataSpec`.
        drop_empty: leave out images without a box to train on.

    Raises:
        DataError: the annotations are inconsistent; reading a sample raises it for a broken image.
    """

    def __init__(
        self,
        split: AnnotatedSplit,
        labels: Labels = "contiguous",
        limit: int | None = None,
        drop_empty: bool = False,
    ) -> None:
        self.place, self.image_folder, self.labels, self._split = split.place, split.images, labels, split
        self._index = split.index()
        self.categories = self._index.categories
        places = np.arange(len(self._index.image_ids))
        if drop_empty:
            places = places[self._trainable()]
        self._places = places[:limit]  # in the index
        self.image_ids: list[int] = self._index.image_ids[self._places].tolist()
        if not self.image_ids:
            raise DataError(f"{split.place}: no images to use", hint="fill it, or set keep_empty: true")
        if not self.categories:
            raise DataError(f"{split.place}: no categories", hint="list at least one under 'categories'")

    @classmethod
    def open(cls, spec: DataSpec, split: Split) -> CocoDataset:
        """The split of the folder that `spec` names.

        Raises:
            DataError: no path given, or nothing usable there.
        """
        if spec.path is None:
            raise DataError("data 'coco' needs the folder of the data set", hint=f"add --data PATH; {layouts.HINT}")
        drop_empty = split == "train" and not spec.keep_empty
        return cls(layouts.read(spec.path, split), spec.labels, spec.limit, drop_empty)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        return self._index.sizes[self._places]

    @property
    def num_classes(self) -> int:
        if self.labels == "category_id":  # label 0 and the unused ids in between exist, as in COCO's 91
            return self.categories[-1].id + 1
        return len(self.categories)

    @cached_property
    def annotations_digest(self) -> str:
        """Equal for equal annotations, of all images."""
        return self._split.digest()

    @cached_property
    def fingerprint(self) -> str:
        names = (self._index.file_names[place] for place in self._places)
        images = contents.digest(self.image_folder, names)
        return hashlib.sha256(f"{self.annotations_digest} {self.labels} {self.image_ids}{images}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Sample:
        place, image_id = int(self._places[index]), self.image_ids[index]
        width, height = self._index.sizes[place].tolist()
        path = self.image_folder / self._index.file_names[place]
        image = read_image(path, image_id)
        if image.size != (width, height):
            message = f"the record says {width}x{height}, the image has {image.width}x{image.height}"
            hint = "correct the record, or list all with `detrbench validate PATH`"
            raise DataError(f"{path} (image id {image_id}): {message}", hint=hint)
        return Sample(image, self._target(place), image.height, image.width)

    def coco_ground_truth(self) -> dict[str, Any]:
        """As `Dataset` says; annotations are numbered anew from 1, since pycocotools takes id 0 for "unmatched"."""
        return self._index.document(self._places)

    def to_category_id(self, label: int) -> int:
        return label if self.labels == "category_id" else self.categories[label].id

    @cached_property
    def _labels_of(self) -> npt.NDArray[np.int64]:
        """(K,) the label of each category."""
        if self.labels == "category_id":
            return np.array([category.id for category in self.categories])
        return np.arange(len(self.categories))

    def _trainable(self) -> npt.NDArray[np.bool_]:
        """(N,) images of the index with a box to train on."""
        index = self._index
        usable = _clamped(index.boxes, index.sizes[index.image])[1] & ~index.iscrowd
        return np.bincount(index.image[usable], minlength=len(index.image_ids)) > 0

    def _target(self, place: int) -> Target:
        """The image's usable annotations: boxes clamped to it, none without area."""
        index, here = self._index, self._index.of_image(place)
        boxes, usable = _clamped(index.boxes[here], index.sizes[place][None])
        labels, iscrowd = self._labels_of[index.category[here]], index.iscrowd[here]
        area = index.area[here].astype(np.float32)
        image_id = int(index.image_ids[place])
        return Target(image_id, labels[usable], boxes[usable], iscrowd[usable], area[usable])


def _clamped(
    boxes: npt.NDArray[np.float64], sizes: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Boxes (n, 4) x y width height as x1 y1 x2 y2 within images of `sizes` (n or 1, 2); which have area (n,)."""
    with np.errstate(over="ignore", invalid="ignore"):  # what no float32 holds is clamped next, or has no area
        corners = boxes.astype(np.float32)
        corners[:, 2:] += corners[:, :2]
    corners = corners.clip(0, np.tile(sizes, 2).astype(np.float32))
    return corners, (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
