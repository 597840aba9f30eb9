"""What every layout is read into: one split of a data set in the terms of COCO's format. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Mistakes that training and evaluation can deal with; all others are refused, since they would give wrong numbers.
HARMLESS = frozenset({"empty_box", "box_outside", "zero_id", "polygon", "missing_labels", "orphan_labels"})


@dataclass(frozen=True)
class FileMistake:
    """One mistake in the files of a data set.

    `id` is that of the image, annotation or category, in a file of YOLO labels the line; None where the whole file is
    meant.
    """

    file: str
    id: int | str | None
    kind: str
    message: str


@dataclass(frozen=True)
class AnnotatedSplit:
    """The images of one split with their boxes.

    Attributes:
        root: the folder of the data set.
        place: the annotation file, or the file that names the folders: what errors call it.
        images: the folder that each `file_name` is relative to.
        document: `images`, `annotations` and `categories` as COCO's JSON has them; `mistakes` says if not.
        mistakes: all that is wrong in the annotations; the images themselves are not decoded.
        content: gives the bytes that stand for the annotations: equal ones, equal samples.
        notes: what a reader decided that a user should know.
    """

    root: Path
    place: Path
    images: Path
    document: Any
    mistakes: tuple[FileMistake, ...]
    content: Callable[[], bytes]
    notes: tuple[str, ...] = ()
