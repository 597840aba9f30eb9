"""YOLO folders: `data.yaml` names the classes and the folders of images; each image has a text file of boxes.

A line of labels is `class cx cy w h`, relative to the image, so width and height are read from the image's header. The
labels of `.../images/a.jpg` are in `.../labels/a.txt`, and beside the image where no folder is called `images`. An
image without a file of labels has no objects. A polygon (`class x1 y1 x2 y2 x3 y3 ...`) counts as the box around it.
The area of an object is that of its box.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from detrbench import yaml12
from detrbench.data.layouts.index import parsed
from detrbench.data.layouts.split import AnnotatedSplit, FileMistake
from detrbench.data.reading import reason, refuse_file, refuse_size
from detrbench.errors import DataError
from detrbench.files import is_special

NAME = "YOLO"
SHAPE = "PATH/data.yaml with names, train and val, beside images/ and labels/ with a text file for each image"

_KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_NOT_LABELS = frozenset({"classes.txt", "notes.txt", "README.txt"})  # what labelling tools leave among the labels
_ROUNDING = 1e-3  # by which a coordinate may leave [0, 1]: it is written rounded
_LONGEST_NUMBER = 10  # digits
_ORIENTATION = 0x0112  # the EXIF tag


def splits(root: Path) -> list[str]:
    """The splits that `root` has in this layout; none where it has another."""
    if not (root / "data.yaml").is_file():
        return []
    settings = _settings(root)
    return [split for split in _KEYS if _key(settings, split)]


def read(root: Path, split: str) -> AnnotatedSplit:
    """One split; raises DataError where data.yaml does not say, or says wrongly, where its images are."""
    place, settings = root / "data.yaml", _settings(root)
    key = _key(settings, split)
    if key is None:
        raise DataError(f"{place}: no {split!r}", hint=f"add `{split}: images/{split}`, or where its images are")
    names = _names(place, settings)
    images = _images(root, settings, key)
    labels = {path: _labels_of(path) for path in images}
    if not any(path.is_file() for path in labels.values()):
        looked = next(iter(labels.values()))
        raise DataError(f"{place}: {key}: no image has labels", hint=f"looked for {looked} and so on")
    mistakes = list(_orphans(labels))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(functools.partial(_read_image, names=names), labels, labels.values()))
    records: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for path, image in zip(labels, found, strict=True):
        mistakes += image.mistakes
        if image.size is None:
            continue
        number, (width, height) = len(records) + 1, image.size
        relative = os.path.relpath(path, root)
        records.append({"id": number, "file_name": relative, "width": width, "height": height})
        for category, box in image.boxes:
            identity = {"id": len(boxes) + 1, "image_id": number, "category_id": category, "iscrowd": 0}
            boxes.append({**identity, "bbox": box, "area": box[2] * box[3]})
    categories = [{"id": number, "name": name} for number, name in names.items()]
    document = {"images": records, "annotations": boxes, "categories": categories}
    return parsed(root, place, root, document, tuple(mistakes), _content(document))


# ------------------------------------------------------------------------------------------------------- data.yaml


def _settings(root: Path) -> Mapping[str, Any]:
    document = yaml12.load(root / "data.yaml")
    if not isinstance(document.value, dict):
        raise document.error((), "expected a mapping with names, train and val")
    return document.value


def _key(settings: Mapping[str, Any], split: str) -> str | None:
    return next((key for key in _KEYS[split] if settings.get(key)), None)


def _names(place: Path, settings: Mapping[str, Any]) -> dict[int, str]:
    """Class number -> name, from a list or from a mapping with the numbers as keys."""
    given = settings.get("names")
    if isinstance(given, list):
        given = {str(number): name for number, name in enumerate(given)}
    if not isinstance(given, dict) or not given:
        raise DataError(f"{place}: names: expected the names of the classes, found {given!r}", hint="names: [cat, dog]")
    for key in given:
        if not (key.isdecimal() and len(key) < _LONGEST_NUMBER):
            raise DataError(f"{place}: names: expected the number of a class, found {key!r}", hint="names: {0: cat}")
    names = {int(key): str(name) for key, name in sorted(given.items(), key=lambda entry: int(entry[0]))}
    if not all(names.values()):
        raise DataError(f"{place}: names: expected a name for each class, found {given!r}", hint="names: [cat, dog]")
    if len(set(names.values())) < len(names):
        raise DataError(f"{place}: names: two classes have one name", hint="give each class its own")
    if settings.get("nc") not in (None, len(names)):
        raise DataError(f"{place}: nc is {settings['nc']}, and names has {len(names)} classes", hint="make them agree")
    return names


def _images(root: Path, settings: Mapping[str, Any], key: str) -> list[Path]:
    """All images of a split, by name: of one folder, or of a list of folders or of text files that list images."""
    entries = settings[key] if isinstance(settings[key], list) else [settings[key]]
    images: list[Path] = []
    for entry in entries:
        path = _located(root, settings, key, str(entry))
        if path.is_dir():
            images += (file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES)
        elif is_special(path):
            raise DataError(f"{path}: expected a folder, or a text file that lists images")
        else:
            lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
            images += (path.parent / line for line in lines if line)
    if not images:
        raise DataError(f"{root / 'data.yaml'}: {key}: no images in {settings[key]}")
    return sorted(dict.fromkeys(images))


def _located(root: Path, settings: Mapping[str, Any], key: str, entry: str) -> Path:
    """A folder that data.yaml names. Exports say `path: ...` of another machine and `../train/images` for their own."""
    bases = [root / str(settings.get("path") or ""), root]
    tried = [base / form for base in bases for form in dict.fromkeys((entry, entry.removeprefix("../")))]
    for path in tried:
        if path.exists():
            return path
    looked = ", ".join(str(path) for path in dict.fromkeys(tried))
    raise DataError(f"{root / 'data.yaml'}: {key}: no such folder: looked for {looked}", hint=f"correct {key!r} there")


def _labels_of(image: Path) -> Path:
    parts = list(image.with_suffix(".txt").parts)
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[-2::-1].index("images")
        parts[last] = "labels"
    return Path(*parts)


# ----------------------------------------------------------------------------------------------- images and labels


@dataclass(frozen=True)
class _LabelledImage:
    """`size` is (width, height), None for an image that cannot be read; boxes are (class, [x, y, w, h] in pixels)."""

    size: tuple[int, int] | None
    boxes: list[tuple[int, list[float]]]
    mistakes: list[FileMistake]


def _orphans(labels: Mapping[Path, Path]) -> Iterator[FileMistake]:
    known = set(labels.values())
    for folder in dict.fromkeys(path.parent for path in labels.values()):
        for path in sorted(folder.glob("*.txt")):
            if path not in known and path.name not in _NOT_LABELS:
                yield FileMistake(str(path), None, "orphan_labels", "labels without an image")


def _read_image(path: Path, labels: Path, names: Mapping[int, str]) -> _LabelledImage:
    try:
        refuse_file(path)
        with Image.open(path) as image:
            refuse_size(image)
            size, turned = image.size, image.getexif().get(_ORIENTATION, 1) not in (0, 1)
    except Exception as error:  # decoders raise many kinds
        why = f"cannot be read: {reason(error)}"
        return _LabelledImage(None, [], [FileMistake(str(path), None, "unreadable_image", why)])
    mistakes = []
    if turned:
        message = "turned by its EXIF tag, which labels follow and stored pixels do not: save it upright"
        mistakes.append(FileMistake(str(path), None, "exif_orientation", message))
    if not labels.is_file():
        message = f"no {labels}: taken for an image without objects"
        mistakes.append(FileMistake(str(path), None, "missing_labels", message))
        return _LabelledImage(size, [], mistakes)
    boxes = []
    for number, line in enumerate(labels.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        category, box, found = _read_line(line, size, names)
        mistakes += [FileMistake(str(labels), number, kind, message) for kind, message in found]
        if box is not None:
            boxes.append((category, box))
    return _LabelledImage(size, boxes, mistakes)


def _read_line(
    line: str, size: tuple[int, int], names: Mapping[int, str]
) -> tuple[int, list[float] | None, list[tuple[str, str]]]:
    """(class, box in pixels or None, [(kind of mistake, message)]) of one line."""
    try:
        category, *values = (float(word) for word in line.split())
    except ValueError:
        return 0, None, [("bad_line", f"expected numbers, found {line[:60]!r}")]
    polygon = len(values) >= 6 and len(values) % 2 == 0
    if len(values) != 4 and not polygon:
        return 0, None, [("bad_line", f"expected class cx cy w h, found {len(values) + 1} numbers")]
    if category not in names:
        return 0, None, [("unknown_category", f"class {category:g}: names has {', '.join(map(str, names))[:60]}")]
    if not all(math.isfinite(value) and -_ROUNDING <= value <= 1 + _ROUNDING for value in values):
        return 0, None, [("not_relative", f"expected coordinates from 0 to 1, found {line[:60]!r}")]
    found = []
    if polygon:
        found.append(("polygon", f"{len(values) // 2} points of a segmentation: the box around them is taken"))
        x1, x2, y1, y2 = min(values[::2]), max(values[::2]), min(values[1::2]), max(values[1::2])
    else:
        cx, cy, w, h = values
        x1, x2, y1, y2 = cx - w / 2, cx + w / 2, cy - h / 2, cy + h / 2
    width, height = size
    if x2 <= x1 or y2 <= y1:
        found.append(("empty_box", "zero width or height"))
    outside = max(-x1 * width, (x2 - 1) * width, -y1 * height, (y2 - 1) * height)
    if outside > 0.5:
        found.append(("box_outside", f"the box leaves the image by {outside:.1f} pixels"))
    return int(category), [x1 * width, y1 * height, max(x2 - x1, 0.0) * width, max(y2 - y1, 0.0) * height], found


def _content(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True).encode()
