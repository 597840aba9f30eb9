"""COCO's own layout: `annotations/instances_<split>2017.json` beside a folder of images for each split."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

from detrbench.data.layouts import kept
from detrbench.data.layouts.index import AnnotationIndex, mistakes_of, read_index, remarks_of
from detrbench.data.layouts.split import AnnotatedSplit, FileMistake
from detrbench.data.reading import read_json
from detrbench.errors import DataError
from detrbench.files import sha256

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
    """An annotation file with the folder of its images, wherever they are."""
    parse = functools.partial(_parse, annotations)
    index = functools.partial(kept.index_of, annotations, functools.partial(read_index, annotations, root))
    remarks, digest = functools.partial(remarks_of, annotations), functools.partial(sha256, annotations)
    return AnnotatedSplit(root, annotations, images, parse, index, remarks, digest)


def _parse(annotations: Path) -> tuple[Any, tuple[FileMistake, ...]]:
    document = read_json(annotations)
    return document, mistakes_of(annotations, document)


def _files(root: Path, split: str) -> list[Path]:
    """COCO's own name, and the same without the year."""
    return [root / "annotations" / f"instances_{split}{year}.json" for year in ("2017", "")]


def _with_images(root: Path, split: str, annotations: Path) -> AnnotatedSplit:
    names = (f"{split}2017", split, f"images/{split}2017", f"images/{split}", "images")
    folders = [root / name for name in names]
    for path in folders:
        if path.is_dir():
            return of_files(root, annotations, path)
    message = f"no images of split {split!r}: looked for {_listed(folders)}"
    missing = FileMistake(str(annotations), None, "missing_folder", message)
    found = of_files(root, annotations, folders[0])

    def parse() -> tuple[Any, tuple[FileMistake, ...]]:
        document, mistakes = _parse(annotations)
        return document, (*mistakes, missing)

    def index() -> AnnotationIndex:
        found.index()  # what is wrong in the file comes first
        raise DataError(f"{missing.file}: {message}", hint=f"`detrbench validate {root}` lists all")

    return dataclasses.replace(found, parse=parse, index=index)


def _listed(paths: list[Path]) -> str:
    return ", ".join(str(path) for path in paths)
