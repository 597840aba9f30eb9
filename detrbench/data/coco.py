"""Data sets in COCO's terms: folders of annotated images, in any of the layouts that are read.

Crowd annotations stay in the ground truth with `iscrowd` 1, where evaluation ignores what they match; training
never sees them. Boxes are clamped to the image, and those left without area are dropped, as DETR's code does.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from functools import cached_property
from typing import Any

import numpy as np

from detrbench.data import contents, layouts
from detrbench.data.layouts.split import HARMLESS, AnnotatedSplit
from detrbench.data.reading import read_image
from detrbench.data.samples import Category, Sample, Target
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
        _refuse_broken(split)
        document = split.document
        self.image_folder, self.labels, self._content = split.images, labels, split.content
        self.categories = sorted(
            (Category(record["id"], record["name"]) for record in document["categories"]), key=lambda c: c.id
        )
        self._records = {record["id"]: record for record in document["images"]}
        self._annotations: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for record in document["annotations"]:
            self._annotations[record["image_id"]].append(record)
        ids = sorted(self._records)
        if drop_empty:
            ids = [image_id for image_id in ids if not self._target(image_id).iscrowd.all()]
        self.image_ids = ids[:limit]
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
    def num_classes(self) -> int:
        if self.labels == "category_id":  # label 0 and the unused ids in between exist, as in COCO's 91
            return self.categories[-1].id + 1
        return len(self.categories)

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(self._content())
        digest.update(f"{self.labels} {self.image_ids}".encode())
        names = (self._records[image_id]["file_name"] for image_id in self.image_ids)
        digest.update(contents.digest(self.image_folder, names).encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Sample:
        image_id = self.image_ids[index]
        record = self._records[image_id]
        path = self.image_folder / record["file_name"]
        image = read_image(path, image_id)
        if image.size != (record["width"], record["height"]):
            found, expected = f"{image.width}x{image.height}", f"{record['width']}x{record['height']}"
            message = f"{path} (image id {image_id}): the record says {expected}, the image has {found}"
            raise DataError(message, hint="correct the record, or list all with `detrbench validate PATH`")
        return Sample(image, self._target(image_id), image.height, image.width)

    def coco_ground_truth(self) -> dict[str, Any]:
        """As `Dataset` says; annotations are numbered anew from 1, since pycocotools takes id 0 for "unmatched"."""
        records = [record for image_id in self.image_ids for record in self._annotations.get(image_id, [])]
        return {
            "images": [self._records[image_id] for image_id in self.image_ids],
            "annotations": [{**record, "id": number} for number, record in enumerate(records, start=1)],
            "categories": [{"id": category.id, "name": category.name} for category in self.categories],
        }

    def to_category_id(self, label: int) -> int:
        return label if self.labels == "category_id" else self.categories[label].id

    @cached_property
    def _label_of(self) -> dict[int, int]:
        if self.labels == "category_id":
            return {category.id: category.id for category in self.categories}
        return {category.id: label for label, category in enumerate(self.categories)}

    def _target(self, image_id: int) -> Target:
        """The image's usable annotations: boxes clamped to it, none without area."""
        records, image = self._annotations.get(image_id, []), self._records[image_id]
        boxes = np.array([record["bbox"] for record in records], dtype=np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes[:, 0::2] = boxes[:, 0::2].clip(0, image["width"])
        boxes[:, 1::2] = boxes[:, 1::2].clip(0, image["height"])
        usable = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        labels = np.array([self._label_of[record["category_id"]] for record in records], dtype=np.int64)
        iscrowd = np.array([record["iscrowd"] for record in records], dtype=np.bool_)
        area = np.array([record["area"] for record in records], dtype=np.float32)
        return Target(image_id, labels[usable], boxes[usable], iscrowd[usable], area[usable])


def _refuse_broken(split: AnnotatedSplit) -> None:
    """Raises for the first mistake that would give wrong numbers; harmless ones are dealt with where boxes are read."""
    mistakes = [mistake for mistake in split.mistakes if mistake.kind not in HARMLESS]
    if mistakes:
        first, others = mistakes[0], f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
        raise DataError(f"{first.file}: {first.message}{others}", hint=f"`detrbench validate {split.root}` lists all")
