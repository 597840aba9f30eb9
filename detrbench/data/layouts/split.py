"""What every layout is read into: one split of a data set in the terms of COCO's format. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detrbench.errors import DataError

if TYPE_CHECKING:
    from detrbench.data.layouts.index import AnnotationIndex

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


@dataclass
class AnnotatedSplit:
    """The images of one split with their boxes; read when asked for, since a large file is seldom wanted whole.

    Attributes:
        root: the folder of the data set.
        place: the annotation file, or the file that names the folders: what errors call it.
        images: the folder that each `file_name` is relative to.
        parse: gives `document` and `mistakes`.
        index: gives the annotations as arrays; raises DataError for the first mistake that is not harmless.
        remarks: gives what is harmless in what an index could be made of.
        digest: gives what stands for the annotations: equal ones, equal samples.
        notes: what a reader decided that a user should know.
    """

    root: Path
    place: Path
    images: Path
    parse: Callable[[], tuple[Any, tuple[FileMistake, ...]]]
    index: Callable[[], AnnotationIndex]
    remarks: Callable[[AnnotationIndex], tuple[FileMistake, ...]]
    digest: Callable[[], str]
    notes: tuple[str, ...] = ()

    @property
    def document(self) -> Any:
        """`images`, `annotations` and `categories` as COCO's JSON has them; `mistakes` says if not."""
        return self._parsed[0]

    @property
    def mistakes(self) -> tuple[FileMistake, ...]:
        """All that is wrong in the annotations; the images themselves are not decoded."""
        return self._parsed[1]

    @cached_property
    def _parsed(self) -> tuple[Any, tuple[FileMistake, ...]]:
        return self.parse()


def refuse(root: Path, mistakes: Sequence[FileMistake]) -> None:
    """Raises DataError for the first mistake that would give wrong numbers."""
    found = [mistake for mistake in mistakes if mistake.kind not in HARMLESS]
    if found:
        others = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise DataError(f"{found[0].file}: {found[0].message}{others}", hint=f"`detrbench validate {root}` lists all")
