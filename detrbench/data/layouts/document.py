"""Every mistake in a parsed COCO annotation file, each with the id of its record and a kind; validate.py lists them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, TypeGuard

_BEYOND = 2**63  # what no index of 64 bits can hold

OUTSIDE_TOLERANCE = 0.5
"""Pixels by which a box may pass the border: coordinates are written rounded."""


@dataclass(frozen=True)
class Mistake:
    """One mistake. `id` is that of the image, annotation or category; None where the whole file is meant."""

    id: int | str | None
    kind: str
    message: str


def check_document(document: Any) -> Iterator[Mistake]:
    """The mistakes within one parsed annotation file; images are not looked at."""
    if not isinstance(document, dict):
        yield Mistake(None, "wrong_type", f"expected an object at the top, found {_type(document)}")
        return
    for key in ("images", "annotations", "categories"):
        if key not in document:
            yield Mistake(None, "missing_key", f"no {key!r} at the top")
        elif not isinstance(document[key], list):
            yield Mistake(None, "wrong_type", f"{key!r}: expected a list, found {_type(document[key])}")
    yield from _each(document, "categories", _category_mistakes)
    yield from _duplicates(document, "categories", "id", "duplicate_id")
    yield from _duplicates(document, "categories", "name", "duplicate_name")
    yield from _each(document, "images", _image_mistakes)
    yield from _duplicates(document, "images", "id", "duplicate_id")
    yield from _each(document, "annotations", _annotation_mistakes)
    yield from _duplicates(document, "annotations", "id", "duplicate_id")
    yield from _reference_mistakes(document)


def sound_images(document: Any) -> list[dict[str, Any]]:
    """The records of images that have nothing wrong with them."""
    return _sound(document, "images", _image_mistakes)


def sound_categories(document: Any) -> list[dict[str, Any]]:
    """The categories that have nothing wrong with them."""
    return _sound(document, "categories", _category_mistakes)


def _category_mistakes(record: dict[str, Any]) -> Iterator[Mistake]:
    yield from _typed(record, "category", {"id": _is_int, "name": _is_text})


def _image_mistakes(record: dict[str, Any]) -> Iterator[Mistake]:
    yield from _typed(record, "image", {"id": _is_int, "file_name": _is_text, "width": _is_size, "height": _is_size})
    name = record.get("file_name")
    if isinstance(name, str) and name and leads_outside(name):
        message = f"{_named(record, 'image')}: file_name {name!r}: expected a path within the image folder"
        yield Mistake(record.get("id"), "path_outside", message)


def leads_outside(name: str) -> bool:
    """Whether a file name would be looked for elsewhere than in the folder of the images."""
    path = PurePath(name)
    return path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name


def _annotation_mistakes(record: dict[str, Any]) -> Iterator[Mistake]:
    keys: dict[str, Callable[[Any], bool]]
    keys = {"id": _is_int, "image_id": _is_int, "category_id": _is_int, "bbox": _is_box, "area": _is_number}
    yield from _typed(record, "annotation", keys)
    name, number = _named(record, "annotation"), record.get("id")
    if number == 0:
        yield Mistake(0, "zero_id", f"{name}: pycocotools takes id 0 for 'unmatched'; number from 1")
    if "iscrowd" not in record:
        yield Mistake(number, "missing_key", f"{name}: no 'iscrowd'")
    elif not _is_int(record["iscrowd"]) or record["iscrowd"] not in (0, 1):
        yield Mistake(number, "bad_iscrowd", f"{name}: iscrowd: expected 0 or 1, found {record['iscrowd']!r}")
    box = record.get("bbox")
    if _is_box(box):
        finite = all(math.isfinite(value) for value in box)
        if not finite or box[2] < 0 or box[3] < 0:
            why = "negative size" if finite else "not finite"
            yield Mistake(number, "bad_box", f"{name}: bbox {box}: {why}")
        elif box[2] == 0 or box[3] == 0:
            yield Mistake(number, "empty_box", f"{name}: bbox {box}: zero width or height")
    area = record.get("area")
    if _is_number(area) and not (math.isfinite(area) and area >= 0):
        yield Mistake(number, "bad_box", f"{name}: area: expected a number of at least 0, found {area}")


def _reference_mistakes(document: dict[str, Any]) -> Iterator[Mistake]:
    """Annotations of images or categories that are not there, and boxes that leave their image."""
    images = {record["id"]: record for record in sound_images(document)}
    known_images = {record.get("id") for record in records(document, "images") if _is_int(record.get("id"))}
    known_categories = {r.get("id") for r in records(document, "categories") if _is_int(r.get("id"))}
    for record in records(document, "annotations"):
        name, number = _named(record, "annotation"), record.get("id")
        image_id, category_id, box = record.get("image_id"), record.get("category_id"), record.get("bbox")
        if _is_int(image_id) and image_id not in known_images:
            yield Mistake(number, "unknown_image", f"{name}: no image has id {image_id}")
        if _is_int(category_id) and category_id not in known_categories:
            yield Mistake(number, "unknown_category", f"{name}: no category has id {category_id}")
        if _is_int(image_id) and image_id in images and _is_box(box) and _leaves(box, images[image_id]):
            size = f"{images[image_id]['width']}x{images[image_id]['height']}"
            yield Mistake(number, "box_outside", f"{name}: bbox {box} leaves image {image_id} of {size}")


def _leaves(box: list[float], image: dict[str, Any]) -> bool:
    """Whether a box passes the border by more than rounding does; `bad_box` is for those that are not finite."""
    if not all(math.isfinite(value) for value in box):
        return False
    x, y, width, height = box
    slack = OUTSIDE_TOLERANCE
    return min(x, y) < -slack or x + width > image["width"] + slack or y + height > image["height"] + slack


def _each(
    document: dict[str, Any], key: str, mistakes: Callable[[dict[str, Any]], Iterator[Mistake]]
) -> Iterator[Mistake]:
    """The mistakes of every record of a list, and of entries that are no records."""
    entries = document.get(key)
    for index, record in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(record, dict):
            yield from mistakes(record)
        else:
            yield Mistake(None, "wrong_type", f"{key}[{index}]: expected an object, found {_type(record)}")


def _duplicates(document: dict[str, Any], key: str, name: str, kind: str) -> Iterator[Mistake]:
    seen = set()
    for record in records(document, key):
        value = record.get(name)
        if not isinstance(value, int | str):
            continue
        if value in seen:
            yield Mistake(record.get("id"), kind, f"{key}: {name} {value!r} is used more than once")
        seen.add(value)


def _typed(record: dict[str, Any], what: str, keys: Mapping[str, Callable[[Any], bool]]) -> Iterator[Mistake]:
    for key, fits in keys.items():
        if key not in record:
            yield Mistake(record.get("id"), "missing_key", f"{_named(record, what)}: no {key!r}")
        elif not fits(record[key]):
            found = f"{record[key]!r}"[:60]
            message = f"{_named(record, what)}: {key}: expected {_EXPECTED[fits]}, found {found}"
            yield Mistake(record.get("id"), "wrong_type", message)


def records(document: Any, key: str) -> list[dict[str, Any]]:
    """The records of a list of a parsed file, whatever else it holds."""
    values = document.get(key) if isinstance(document, dict) else None
    return [record for record in values if isinstance(record, dict)] if isinstance(values, list) else []


def _sound(document: Any, key: str, mistakes: Callable[[dict[str, Any]], Iterator[Mistake]]) -> list[dict[str, Any]]:
    return [record for record in records(document, key) if next(mistakes(record), None) is None]


def _named(record: dict[str, Any], what: str) -> str:
    return f"{what} {record.get('id', 'without id')}"


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -_BEYOND <= value < _BEYOND


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
    _is_int: "an integer of 64 bits",
    _is_number: "a number",
    _is_text: "a text",
    _is_size: "a positive integer of 64 bits",
    _is_box: "a list of 4 numbers",
}
