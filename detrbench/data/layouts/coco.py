"""COCO's own layout: `annotations/instances_<split>2017.json` beside a folder of images for each split."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from detrbench.data.layouts.document import check_document
from detrbench.data.layouts.split import AnnotatedSplit, FileMistake
from detrbench.data.reading import read_json
from detrbench.errors import DataError

NAME = "COCO"
SHAPE = "PATH/annotations/instances_val2017.json beside PATH/val2017/*.jpg (train likewise)"


def splits(root: Path) -> list[str]:
    """The splits that `root` has in this layout; none where it has another."""
    return [split for split in ("train", "val") if any(path.is_file() for path in _files(root, split))]


def read(root: Path, split: str) -> AnnotatedSplit:
    """One split; raises DataError where its annotations are missing or no JSON."""
    files = _files(root, split)
    for path in files:
        if path.is_file():
            return _with_images(root, split, path)
    raise DataError(f"no annotations of split {split!r}: looked for {_listed(files)}", hint=f"expected {SHAPE}")


def of_files(root: Path, annotations: Path, images: Path) -> AnnotatedSplit:
    """An annotation file with the folder of its images, wherever they are; raises DataError where it is no JSON."""
    document = read_json(annotations)
    mistakes = [FileMistake(str(annotations), m.id, m.kind, m.message) for m in check_document(document)]
    return AnnotatedSplit(root, annotations, images, document, tuple(mistakes), annotations.read_bytes)


def _files(root: Path, split: str) -> list[Path]:
    """COCO's own name, and the same without the year."""
    return [root / "annotations" / f"instances_{split}{year}.json" for year in ("2017", "")]


def _with_images(root: Path, split: str, annotations: Path) -> AnnotatedSplit:
    names = (f"{split}2017", split, f"images/{split}2017", f"images/{split}", "images")
    folders = [root / name for name in names]
    for path in folders:
        if path.is_dir():
            return of_files(root, annotations, path)
    found = of_files(root, annotations, folders[0])
    message = f"no images of split {split!r}: looked for {_listed(folders)}"
    missing = FileMistake(str(annotations), None, "missing_folder", message)
    return dataclasses.replace(found, mistakes=(*found.mistakes, missing))


def _listed(paths: list[Path]) -> str:
    return ", ".join(str(path) for path in paths)
