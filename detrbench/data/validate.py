"""Every mistake in a folder of annotated images, each with its file, the id of its record, and a kind.

    in a COCO annotation file                      in the images
    unreadable_annotations   with line and column  missing_folder     the images of a split
    missing_key          of a record               missing_image      a record without a file
    wrong_type           of a value                unreadable_image   truncated or undecodable
    duplicate_id         image, annotation, category    size_differs  from width and height of the record
    duplicate_name       of two categories         between the splits
    unknown_category     of an annotation          categories_differ  the same ids and names are needed in both
    unknown_image        of an annotation
    path_outside         a file_name that leaves the folder of the images
    bad_iscrowd          neither 0 nor 1           in YOLO labels, where the id is the line
    bad_box              NaN, infinite, or of negative size    bad_line          not `class cx cy w h`
    empty_box   (harmless: training drops it;      unknown_category  the number of a class past `names`
                evaluation counts it as missed)    not_relative      a coordinate that is not in 0..1
    box_outside (harmless: training clamps it)     exif_orientation  of an image that its labels see turned
    zero_id     (harmless here; pycocotools alone  polygon           (harmless: the box around it is taken)
                takes it for "unmatched")          missing_labels    (harmless: an image without objects)
                                                   orphan_labels     (harmless: labels without an image)

What is not harmless is refused when the data set is opened; `inspect` also decodes every image.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detrbench.data import layouts
from detrbench.data.layouts.document import records, sound_categories, sound_images
from detrbench.data.layouts.index import AnnotationIndex
from detrbench.data.layouts.split import AnnotatedSplit, FileMistake
from detrbench.data.reading import read_image
from detrbench.errors import DataError

_AHEAD = 1000  # images that are handed out to threads at once


@dataclass(frozen=True)
class SplitCounts:
    """How much a split holds; `without_boxes` of its images have none."""

    images: int
    boxes: int
    without_boxes: int


@dataclass(frozen=True)
class _Image:
    """An image as its record has it."""

    path: Path
    id: int
    size: tuple[int, int]


@dataclass(frozen=True)
class _Annotations:
    """What the annotations of one split say; `images` are those that have nothing wrong with them."""

    mistakes: tuple[FileMistake, ...]
    classes: dict[int, str]
    counts: SplitCounts
    images: Callable[[], Iterator[_Image]]


@dataclass(frozen=True)
class Inspection:
    """What a folder was understood to be, and all that is wrong with it.

    `layout` is the reader's name, `classes` are those of its first split, `splits` says how much each holds.
    """

    layout: str
    classes: list[str]
    splits: dict[str, SplitCounts]
    notes: list[str]
    findings: list[FileMistake]


def inspect(root: Path, images: bool = True, progress: Callable[[int, int], None] | None = None) -> Inspection:
    """Reads the annotations of all splits that `root` has, and decodes their images.

    Args:
        root: a folder in any layout.
        images: whether to decode them.
        progress: called with (images done, images in all) after each image.

    Raises:
        DataError: `root` holds no split at all.
    """
    layout = layouts.recognise(root)
    findings: list[FileMistake] = []
    read: dict[str, AnnotatedSplit] = {}
    said: dict[str, _Annotations] = {}
    for split in layout.splits(root):
        try:
            found = layout.read(root, split)
            said[split] = _annotations(found)
            findings += said[split].mistakes
            read[split] = found
        except DataError as error:
            findings.append(FileMistake(str(root), None, "unreadable_annotations", error.message))
    findings += _compare_categories({str(found.place): said[split].classes for split, found in read.items()})
    if images:
        looked_at = [each for each in said.values() if not any(m.kind == "missing_folder" for m in each.mistakes)]
        total = sum(each.counts.images for each in looked_at)
        findings += _check_images(itertools.chain.from_iterable(each.images() for each in looked_at), total, progress)
    names = next((each.classes for each in said.values()), {})
    notes = dict.fromkeys(note for found in read.values() for note in found.notes)
    counts = {split: each.counts for split, each in said.items()}
    return Inspection(layout.NAME, [names[number] for number in sorted(names)], counts, list(notes), findings)


def _annotations(split: AnnotatedSplit) -> _Annotations:
    """Read in batches, which 450 MB of text take little memory for; whole only where a mistake has to be named."""
    try:
        index = split.index()
    except DataError:
        return _of_document(split)
    return _of_index(split, index)


def _of_index(split: AnnotatedSplit, index: AnnotationIndex) -> _Annotations:
    def images() -> Iterator[_Image]:
        for number, name, size in zip(index.image_ids, index.file_names, index.sizes):
            yield _Image(split.images / name, int(number), (int(size[0]), int(size[1])))

    with_boxes = np.count_nonzero(np.diff(index.ends, prepend=0))
    counts = SplitCounts(len(index.image_ids), len(index.ids), len(index.image_ids) - int(with_boxes))
    return _Annotations(split.remarks(index), {c.id: c.name for c in index.categories}, counts, images)


def _of_document(split: AnnotatedSplit) -> _Annotations:
    def images() -> Iterator[_Image]:
        for record in sound_images(split.document):
            yield _Image(split.images / record["file_name"], record["id"], (record["width"], record["height"]))

    classes = {c["id"]: c["name"] for c in sound_categories(split.document)}
    return _Annotations(split.mistakes, classes, _counts(split.document), images)


def _counts(document: Any) -> SplitCounts:
    images = sound_images(document)
    boxes = records(document, "annotations")
    seen = {box["image_id"] for box in boxes if isinstance(box.get("image_id"), int)}
    return SplitCounts(len(images), len(boxes), sum(image["id"] not in seen for image in images))


def _compare_categories(by_file: dict[str, dict[int, str]]) -> Iterator[FileMistake]:
    """Labels are numbered from the categories, so the splits have to agree on them."""
    files = list(by_file)
    for file in files[1:]:
        differing = sorted(set(by_file[files[0]].items()) ^ set(by_file[file].items()))
        if differing:
            number, name = differing[0]
            message = f"categories differ from those of {files[0]}: id {number} ({name!r}) is not in both"
            yield FileMistake(file, number, "categories_differ", message)


def _check_images(
    images: Iterator[_Image], total: int, progress: Callable[[int, int], None] | None
) -> list[FileMistake]:
    """Decodes every image, on all cores: decoding releases Python's lock."""
    findings, done = list[FileMistake](), 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while batch := list(itertools.islice(images, _AHEAD)):
            for finding in pool.map(_check_image, batch):
                done += 1
                if finding is not None:
                    findings.append(finding)
                if progress is not None:
                    progress(done, total)
    return findings


def _check_image(image: _Image) -> FileMistake | None:
    path, image_id, expected = image.path, image.id, image.size
    if not path.is_file():
        return FileMistake(str(path), image_id, "missing_image", f"image {image_id}: no such file")
    try:
        width, height = read_image(path, image_id).size
    except DataError as error:
        return FileMistake(str(path), image_id, "unreadable_image", error.message)
    if (width, height) == expected:
        return None
    message = f"image {image_id}: recorded as {expected[0]}x{expected[1]}, is {width}x{height}"
    return FileMistake(str(path), image_id, "size_differs", message)
