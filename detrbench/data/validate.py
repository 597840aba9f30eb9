"""Every mistake in a COCO folder, each with its file, the id of its record, and a kind.

    in the annotation file                         in the images
    broken_json          line and column           missing_folder     the images of a split
    missing_key          of a record               missing_image      a record without a file
    wrong_type           of a value                unreadable_image   truncated or undecodable
    duplicate_id         image, annotation, category    size_differs  from width and height of the record
    duplicate_name       of two categories         between the splits
    unknown_category     of an annotation          categories_differ  the same ids and names are needed in both
    unknown_image        of an annotation
    path_outside         a file_name that leaves the folder of the images
    bad_iscrowd          neither 0 nor 1
    bad_box              NaN, infinite, or of negative size
    empty_box            of zero width or height   (harmless: training drops it; evaluation counts it as missed)
    box_outside          of its image              (harmless: training clamps it)
    zero_id              annotation id 0           (harmless here; pycocotools alone takes it for "unmatched")

`check_document` is what `CocoDataset` runs before it trusts a file; `validate` also decodes every image.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, TypeGuard, get_args

from detrbench.data.layout import find_annotations, find_images, read_image, read_json
from detrbench.data.spec import Split
from detrbench.errors import DataError

HARMLESS = frozenset({"empty_box", "box_outside", "zero_id"})

OUTSIDE_TOLERANCE = 0.5
"""Pixels by which a box may pass the border: coordinates are written rounded."""


@dataclass(frozen=True)
class FileMistake:
    """One mistake. `id` is that of the image, annotation or category; None where the whole file is meant."""

    file: str
    id: int | str | None
    kind: str
    message: str


@dataclass(frozen=True)
class _Mistake:
    id: int | str | None
    kind: str
    message: str


def validate(root: Path, progress: Callable[[int, int], None] | None = None) -> list[FileMistake]:
    """Reads all annotations and decodes all images of the splits that `root` has.

    Args:
        root: a folder in COCO layout.
        progress: called with (images done, images in all) after each image.

    Raises:
        DataError: `root` holds no split at all.
    """
    findings: list[FileMistake] = []
    records: list[tuple[Path, dict[str, Any]]] = []
    categories: dict[str, dict[int, str]] = {}
    for split, path in _splits(root).items():
        file = str(path)
        try:
            document = read_json(path)
        except DataError as error:
            findings.append(FileMistake(file, None, "broken_json", error.message))
            continue
        findings += [FileMistake(file, m.id, m.kind, m.message) for m in check_document(document)]
        sound = _sound(document, "categories", _category_mistakes)
        categories[file] = {record["id"]: record["name"] for record in sound}
        try:
            folder = find_images(root, split)
        except DataError as error:
            findings.append(FileMistake(file, None, "missing_folder", error.message))
            continue
        records += [(folder, record) for record in _sound(document, "images", _image_mistakes)]
    findings += _compare_categories(categories)
    return findings + _check_images(records, progress)


def check_document(document: Any) -> Iterator[_Mistake]:
    """The mistakes within one parsed annotation file; images are not looked at."""
    if not isinstance(document, dict):
        yield _Mistake(None, "wrong_type", f"expected an object at the top, found {_type(document)}")
        return
    for key in ("images", "annotations", "categories"):
        if key not in document:
            yield _Mistake(None, "missing_key", f"no {key!r} at the top")
        elif not isinstance(document[key], list):
            yield _Mistake(None, "wrong_type", f"{key!r}: expected a list, found {_type(document[key])}")
    yield from _each(document, "categories", _category_mistakes)
    yield from _duplicates(document, "categories", "id", "duplicate_id")
    yield from _duplicates(document, "categories", "name", "duplicate_name")
    yield from _each(document, "images", _image_mistakes)
    yield from _duplicates(document, "images", "id", "duplicate_id")
    yield from _each(document, "annotations", _annotation_mistakes)
    yield from _duplicates(document, "annotations", "id", "duplicate_id")
    yield from _reference_mistakes(document)


def _splits(root: Path) -> dict[Split, Path]:
    """The annotation file of each split that has one; raises what `find_annotations` says when none has."""
    found: dict[Split, Path] = {}
    errors = []
    for split in get_args(Split):
        try:
            found[split] = find_annotations(root, split)
        except DataError as error:
            errors.append(error)
    if not found:
        raise errors[-1]
    return found


def _category_mistakes(record: dict[str, Any]) -> Iterator[_Mistake]:
    yield from _typed(record, "category", {"id": _is_int, "name": _is_text})


def _image_mistakes(record: dict[str, Any]) -> Iterator[_Mistake]:
    yield from _typed(record, "image", {"id": _is_int, "file_name": _is_text, "width": _is_size, "height": _is_size})
    name = record.get("file_name")
    if isinstance(name, str) and name and _leads_outside(name):
        message = f"{_named(record, 'image')}: file_name {name!r}: expected a path within the image folder"
        yield _Mistake(record.get("id"), "path_outside", message)


def _leads_outside(name: str) -> bool:
    """Whether a file name would be looked for elsewhere than in the folder of the images."""
    path = PurePath(name)
    return path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name


def _annotation_mistakes(record: dict[str, Any]) -> Iterator[_Mistake]:
    keys: dict[str, Callable[[Any], bool]]
    keys = {"id": _is_int, "image_id": _is_int, "category_id": _is_int, "bbox": _is_box, "area": _is_number}
    yield from _typed(record, "annotation", keys)
    name, number = _named(record, "annotation"), record.get("id")
    if number == 0:
        yield _Mistake(0, "zero_id", f"{name}: pycocotools takes id 0 for 'unmatched'; number from 1")
    if "iscrowd" not in record:
        yield _Mistake(number, "missing_key", f"{name}: no 'iscrowd'")
    elif not _is_int(record["iscrowd"]) or record["iscrowd"] not in (0, 1):
        yield _Mistake(number, "bad_iscrowd", f"{name}: iscrowd: expected 0 or 1, found {record['iscrowd']!r}")
    box = record.get("bbox")
    if _is_box(box):
        finite = all(math.isfinite(value) for value in box)
        if not finite or box[2] < 0 or box[3] < 0:
            why = "negative size" if finite else "not finite"
            yield _Mistake(number, "bad_box", f"{name}: bbox {box}: {why}")
        elif box[2] == 0 or box[3] == 0:
            yield _Mistake(number, "empty_box", f"{name}: bbox {box}: zero width or height")
    area = record.get("area")
    if _is_number(area) and not (math.isfinite(area) and area >= 0):
        yield _Mistake(number, "bad_box", f"{name}: area: expected a number of at least 0, found {area}")


def _reference_mistakes(document: dict[str, Any]) -> Iterator[_Mistake]:
    """Annotations of images or categories that are not there, and boxes that leave their image."""
    images = {record["id"]: record for record in _sound(document, "images", _image_mistakes)}
    known_images = {record.get("id") for record in _records(document, "images") if _is_int(record.get("id"))}
    known_categories = {r.get("id") for r in _records(document, "categories") if _is_int(r.get("id"))}
    for record in _records(document, "annotations"):
        name, number = _named(record, "annotation"), record.get("id")
        image_id, category_id, box = record.get("image_id"), record.get("category_id"), record.get("bbox")
        if _is_int(image_id) and image_id not in known_images:
            yield _Mistake(number, "unknown_image", f"{name}: no image has id {image_id}")
        if _is_int(category_id) and category_id not in known_categories:
            yield _Mistake(number, "unknown_category", f"{name}: no category has id {category_id}")
        if _is_int(image_id) and image_id in images and _is_box(box) and _leaves(box, images[image_id]):
            size = f"{images[image_id]['width']}x{images[image_id]['height']}"
            yield _Mistake(number, "box_outside", f"{name}: bbox {box} leaves image {image_id} of {size}")


def _leaves(box: list[float], image: dict[str, Any]) -> bool:
    """Whether a box passes the border by more than rounding does; `bad_box` is for those that are not finite."""
    if not all(math.isfinite(value) for value in box):
        return False
    x, y, width, height = box
    slack = OUTSIDE_TOLERANCE
    return min(x, y) < -slack or x + width > image["width"] + slack or y + height > image["height"] + slack


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
    records: list[tuple[Path, dict[str, Any]]], progress: Callable[[int, int], None] | None
) -> list[FileMistake]:
    """Decodes every image, on all cores: decoding releases Python's lock."""
    findings: list[FileMistake] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, finding in enumerate(pool.map(lambda record: _check_image(*record), records), start=1):
            if finding is not None:
                findings.append(finding)
            if progress is not None:
                progress(done, len(records))
    return findings


def _check_image(folder: Path, record: dict[str, Any]) -> FileMistake | None:
    path, image_id = folder / record["file_name"], record["id"]
    if not path.is_file():
        return FileMistake(str(path), image_id, "missing_image", f"image {image_id}: no such file")
    try:
        width, height = read_image(path, image_id).size
    except DataError as error:
        return FileMistake(str(path), image_id, "unreadable_image", error.message)
    expected = (record["width"], record["height"])
    if (width, height) == expected:
        return None
    message = f"image {image_id}: recorded as {expected[0]}x{expected[1]}, is {width}x{height}"
    return FileMistake(str(path), image_id, "size_differs", message)


def _each(
    document: dict[str, Any], key: str, mistakes: Callable[[dict[str, Any]], Iterator[_Mistake]]
) -> Iterator[_Mistake]:
    """The mistakes of every record of a list, and of entries that are no records."""
    records = document.get(key)
    for index, record in enumerate(records if isinstance(records, list) else []):
        if isinstance(record, dict):
            yield from mistakes(record)
        else:
            yield _Mistake(None, "wrong_type", f"{key}[{index}]: expected an object, found {_type(record)}")


def _duplicates(document: dict[str, Any], key: str, name: str, kind: str) -> Iterator[_Mistake]:
    seen = set()
    for record in _records(document, key):
        value = record.get(name)
        if not isinstance(value, int | str):
            continue
        if value in seen:
            yield _Mistake(record.get("id"), kind, f"{key}: {name} {value!r} is used more than once")
        seen.add(value)


def _typed(record: dict[str, Any], what: str, keys: Mapping[str, Callable[[Any], bool]]) -> Iterator[_Mistake]:
    for key, fits in keys.items():
        if key not in record:
            yield _Mistake(record.get("id"), "missing_key", f"{_named(record, what)}: no {key!r}")
        elif not fits(record[key]):
            found = f"{record[key]!r}"[:60]
            message = f"{_named(record, what)}: {key}: expected {_EXPECTED[fits]}, found {found}"
            yield _Mistake(record.get("id"), "wrong_type", message)


def _records(document: Any, key: str) -> list[dict[str, Any]]:
    values = document.get(key) if isinstance(document, dict) else None
    return [record for record in values if isinstance(record, dict)] if isinstance(values, list) else []


def _sound(document: Any, key: str, mistakes: Callable[[dict[str, Any]], Iterator[_Mistake]]) -> list[dict[str, Any]]:
    return [record for record in _records(document, key) if next(mistakes(record), None) is None]


def _named(record: dict[str, Any], what: str) -> str:
    return f"{what} {record.get('id', 'without id')}"


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_size(value: Any) -> bool:
    return _is_int(value) and value > 0


def _is_box(value: Any) -> TypeGuard[list[float]]:
    return isinstance(value, list) and len(value) == 4 and all(_is_number(v) for v in value)


def _type(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a string", type(None): "null"}.get(type(value), repr(value))


_EXPECTED: dict[Callable[[Any], bool], str] = {
    _is_int: "an integer",
    _is_number: "a number",
    _is_text: "a text",
    _is_size: "a positive integer",
    _is_box: "a list of 4 numbers",
}
