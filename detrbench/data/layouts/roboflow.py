"""Roboflow's "COCO" export: folders `train`, `valid`, `test`, each with its images and `_annotations.coco.json`.

Two of its habits are no mistakes and are dealt with here: ids begin at 0, and the first category is no class but the
name of the project, which the classes have as their `supercategory`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detrbench.data.layouts.document import records, sound_categories
from detrbench.data.layouts.index import mistakes_of, parsed
from detrbench.data.layouts.split import AnnotatedSplit
from detrbench.data.reading import read_json
from detrbench.errors import DataError

NAME = "Roboflow COCO"
SHAPE = "PATH/train/_annotations.coco.json and PATH/valid/_annotations.coco.json, images beside each"

_FILE = "_annotations.coco.json"
_FOLDERS = {"train": ("train",), "val": ("valid", "val"), "test": ("test",)}


def splits(root: Path) -> list[str]:
    """The splits that `root` has in this layout; none where it has another."""
    return [split for split in _FOLDERS if _file(root, split)]


def read(root: Path, split: str) -> AnnotatedSplit:
    """One split; raises DataError where its annotations are missing or no JSON."""
    path = _file(root, split)
    if path is None:
        looked = ", ".join(str(root / folder / _FILE) for folder in _FOLDERS[split])
        raise DataError(f"no annotations of split {split!r}: looked for {looked}", hint=f"expected {SHAPE}")
    document = read_json(path)
    mistakes = tuple(mistake for mistake in mistakes_of(path, document) if mistake.kind != "zero_id")
    notes = list[str]()
    project = _project(document)
    if project is not None and project["id"] not in list(_used_categories(root)):
        kept = [category for category in document["categories"] if category is not project]
        document = {**document, "categories": kept}
        number, name = project["id"], project["name"]
        notes.append(f"category {number} ({name!r}) is left out: it names the project, and no box has it")
    return parsed(root, path, path.parent, document, mistakes, path.read_bytes(), tuple(notes))


def _file(root: Path, split: str) -> Path | None:
    paths = (root / folder / _FILE for folder in _FOLDERS[split])
    return next((path for path in paths if path.is_file()), None)


def _project(document: Any) -> dict[str, Any] | None:
    """The category that all others name as their `supercategory`; None where there is none such."""
    categories = records(document, "categories")
    for category in sound_categories(document):
        others = [other for other in categories if other is not category]
        if others and all(other.get("supercategory") == category["name"] for other in others):
            return category
    return None


def _used_categories(root: Path) -> Iterator[Any]:
    """The categories of the boxes of all splits, so that the splits keep the same classes."""
    for split in splits(root):
        path = _file(root, split)
        document = read_json(path) if path else {}
        yield from (box.get("category_id") for box in records(document, "annotations"))
