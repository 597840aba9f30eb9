"""What a COCO annotation file says, as arrays: 60 MB for COCO train2017, whose text is 450 MB.

The file is read in batches. Each is checked as it comes, as strictly as `check_document` checks and much faster; only
a file that does not pass is read whole, for `check_document` to say what is wrong with it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detrbench.data import streaming
from detrbench.data.layouts.document import OUTSIDE_TOLERANCE, check_document, leads_outside
from detrbench.data.layouts.split import AnnotatedSplit, FileMistake, refuse
from detrbench.data.reading import read_json
from detrbench.data.samples import Category
from detrbench.errors import DataError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Rows = dict[str, Any]  # a column by name


@dataclass(frozen=True)
class AnnotationIndex:
    """N images and A annotations; without segmentations.

    Attributes:
        image_ids: (N,) ascending.
        file_names: of each image.
        sizes: (N, 2) width and height in pixels.
        categories: by ascending id.
        ends: (N,) where each image's annotations end; they come by image, there as in the file.
        ids: (A,) as the file numbers the annotations.
        category: (A,) index into `categories`.
        boxes: (A, 4) x, y, width, height in pixels.
        area: (A,) pixels^2.
        iscrowd: (A,)
    """

    image_ids: Ints
    file_names: Sequence[str]
    sizes: Ints
    categories: list[Category]
    ends: Ints
    ids: Ints
    category: Ints
    boxes: Floats
    area: Floats
    iscrowd: npt.NDArray[np.bool_]

    @property
    def image(self) -> Ints:
        """(A,) the place of each annotation's image."""
        return np.repeat(np.arange(len(self.image_ids)), np.diff(self.ends, prepend=0))

    def of_image(self, place: int) -> slice:
        """Where the annotations of the image at that place are."""
        return slice(int(self.ends[place - 1]) if place else 0, int(self.ends[place]))

    def document(self, places: Ints) -> dict[str, Any]:
        """`images`, `annotations` and `categories` of the images at these places, as COCO's JSON has them."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for place in places.tolist():
            here, image_id = self.of_image(place), int(self.image_ids[place])
            width, height = self.sizes[place].tolist()
            images.append({"id": image_id, "file_name": self.file_names[place], "width": width, "height": height})
            columns = (self.category[here], self.boxes[here], self.area[here], self.iscrowd[here].astype(int))
            for category, box, area, iscrowd in zip(*(column.tolist() for column in columns)):
                number, category_id = len(annotations) + 1, self.categories[category].id
                annotations.append(
                    {
                        "id": number,
                        "image_id": image_id,
                        "category_id": category_id,
                        "bbox": box,
                        "area": area,
                        "iscrowd": iscrowd,
                    }
                )
        categories = [{"id": category.id, "name": category.name} for category in self.categories]
        return {"images": images, "annotations": annotations, "categories": categories}


def read_index(path: Path, root: Path) -> AnnotationIndex:
    """The content of an annotation file of the data set at `root`.

    Raises:
        DataError: unreadable, not JSON, or with a mistake that would give wrong numbers, which is named.
    """
    try:
        return _index(_read(path))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        refuse(root, mistakes_of(path, read_json(path)))
        raise DataError(f"{path}: not a COCO annotation file: {error}") from error


def mistakes_of(path: Path, document: Any) -> tuple[FileMistake, ...]:
    """All that is wrong in the document that a file holds."""
    return tuple(FileMistake(str(path), found.id, found.kind, found.message) for found in check_document(document))


def remarks_of(path: Path, index: AnnotationIndex) -> tuple[FileMistake, ...]:
    """What is harmless in a file whose content an index could be made of, as `mistakes_of` finds it."""
    odd = np.flatnonzero((index.ids == 0) | (index.boxes[:, 2:] == 0).any(1) | _outside(index))
    odd = odd[np.argsort(index.ids[odd])]
    image, columns = index.image[odd], (index.ids, index.boxes, index.area, index.iscrowd.astype(int))
    annotations = [
        {
            "id": number,
            "image_id": int(index.image_ids[place]),
            "category_id": index.categories[category].id,
            "bbox": box,
            "area": area,
            "iscrowd": iscrowd,
        }
        for place, category, number, box, area, iscrowd in zip(
            image, index.category[odd], *(column[odd].tolist() for column in columns)
        )
    ]
    document = {**index.document(np.unique(image)), "annotations": annotations}
    return mistakes_of(path, document)


def _outside(index: AnnotationIndex) -> npt.NDArray[np.bool_]:
    """(A,) boxes that pass the border of their image."""
    low, high = index.boxes[:, :2], index.boxes[:, :2] + index.boxes[:, 2:]
    passes = (low < -OUTSIDE_TOLERANCE) | (high > index.sizes[index.image] + OUTSIDE_TOLERANCE)
    return np.asarray(passes.any(1))


def index_of(document: Any) -> AnnotationIndex:
    """The same of a document that has no mistakes but harmless ones."""
    return _index({key: [reader(document[key])] for key, reader in _READERS.items()})


def parsed(
    root: Path,
    place: Path,
    images: Path,
    document: Any,
    mistakes: tuple[FileMistake, ...],
    content: bytes,
    notes: tuple[str, ...] = (),
) -> AnnotatedSplit:
    """A split that a reader had to read whole; `content` stands for its annotations, the rest is the split's."""

    def index() -> AnnotationIndex:
        refuse(root, mistakes)
        return index_of(document)

    def digest() -> str:
        return hashlib.sha256(content).hexdigest()

    parse, remarks = (lambda: (document, mistakes)), (lambda index: mistakes)
    return AnnotatedSplit(root, place, images, parse, index, remarks, digest, notes)


def _read(path: Path) -> dict[str, list[Rows]]:
    """By list of the document, its batches as columns."""
    found: dict[str, list[Rows]] = {}
    with path.open("rb") as file:
        for key, records in streaming.batches(file):
            if key in _READERS:
                found.setdefault(key, []).append(_READERS[key](records))
    return found


def _index(found: dict[str, list[Rows]]) -> AnnotationIndex:
    images, annotations, categories = (_joined(found[key]) for key in ("images", "annotations", "categories"))
    by_id = np.argsort(images["id"], kind="stable")
    image_ids, category_ids = images["id"][by_id], np.sort(categories["id"])
    _demand(len(np.unique(annotations["id"])) == len(annotations["id"]), "annotation ids are used twice")
    image, category = _found(annotations["image_id"], image_ids), _found(annotations["category_id"], category_ids)
    _demand(len(set(categories["name"])) == len(category_ids), "names of categories are used twice")
    order = np.argsort(image, kind="stable")
    names = dict(zip(categories["id"].tolist(), categories["name"]))
    return AnnotationIndex(
        image_ids=image_ids,
        file_names=[images["file_name"][place] for place in by_id],
        sizes=images["size"].reshape(-1, 2)[by_id],
        categories=[Category(number, names[number]) for number in category_ids.tolist()],
        ends=np.bincount(image, minlength=len(image_ids)).cumsum(),
        ids=annotations["id"][order],
        category=category[order],
        boxes=annotations["bbox"].reshape(-1, 4)[order],
        area=annotations["area"][order],
        iscrowd=annotations["iscrowd"][order].astype(np.bool_),
    )


def _joined(batches: list[Rows]) -> Rows:
    """The columns of all batches: arrays, or a list of texts."""
    columns = {name: [batch[name] for batch in batches] for name in batches[0]}
    return {
        name: np.concatenate(parts) if isinstance(parts[0], np.ndarray) else list(itertools.chain(*parts))
        for name, parts in columns.items()
    }


def _found(wanted: Ints, ids: Ints) -> Ints:
    """The place of each id among ascending ones, all of which have to differ."""
    _demand(len(np.unique(ids)) == len(ids), "ids are used twice")
    places = np.searchsorted(ids, wanted)
    _demand(bool((places < len(ids)).all()) and bool((ids[places] == wanted).all()), "ids that are not there")
    return places


def _images(records: list[Any]) -> Rows:
    size = _integers([record[name] for record in records for name in ("width", "height")])
    _demand(bool((size > 0).all()), "images without size")
    names = _texts(records, "file_name")
    _demand(not any(map(leads_outside, names)), "a file_name that leads elsewhere")
    return {"id": _integers([record["id"] for record in records]), "file_name": names, "size": size}


def _categories(records: list[Any]) -> Rows:
    return {"id": _integers([record["id"] for record in records]), "name": _texts(records, "name")}


def _annotations(records: list[Any]) -> Rows:
    columns: Rows = {
        name: _integers([record[name] for record in records]) for name in ("id", "image_id", "category_id", "iscrowd")
    }
    boxes = [record["bbox"] for record in records]
    _demand(set(map(type, boxes)) <= {list} and set(map(len, boxes)) <= {4}, "boxes that are not lists of 4")
    columns["bbox"] = _numbers(list(itertools.chain.from_iterable(boxes)))
    columns["area"] = _numbers([record["area"] for record in records])
    _demand(set(columns["iscrowd"].tolist()) <= {0, 1}, "iscrowd that is neither 0 nor 1")
    sides = columns["bbox"].reshape(-1, 4)[:, 2:]
    _demand(bool((sides >= 0).all()) and bool((columns["area"] >= 0).all()), "negative sizes")
    return columns


_READERS = {"images": _images, "annotations": _annotations, "categories": _categories}


def _integers(values: list[Any]) -> Ints:
    _demand(set(map(type, values)) <= {int}, "a value that is no integer")  # true and false are not
    return np.array(values, dtype=np.int64)


def _numbers(values: list[Any]) -> Floats:
    _demand(set(map(type, values)) <= {int, float}, "a value that is no number")
    numbers = np.array(values, dtype=np.float64)
    _demand(bool(np.isfinite(numbers).all()), "a number that is not finite")
    return numbers


def _texts(records: Iterable[Any], name: str) -> list[str]:
    texts = [record[name] for record in records]
    _demand(set(map(type, texts)) <= {str} and all(texts), "a value that is no text")
    return texts


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
