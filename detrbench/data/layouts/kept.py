"""Indexes of large annotation files, kept in the user's cache: made once, and shared by all processes that read them.

    <cache>/annotations/<place of the annotation file>.index

One line of JSON says which file was indexed, and where the columns lie that follow. They are mapped into memory, not
read: however many processes train on the same images, the machine holds them once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from detrbench.data.layouts.index import AnnotationIndex
from detrbench.data.samples import Category
from detrbench.files import Unwritable, cache_folder, replacing

LARGE = 1 << 23  # bytes; a smaller file is read in less than a second, and its index is small
FORMAT = 1  # another number where what is kept, or how a file is indexed, becomes another
ALIGNED = 64  # bytes

Columns = dict[str, npt.NDArray[Any]]


def index_of(path: Path, read: Callable[[], AnnotationIndex]) -> AnnotationIndex:
    """The index of an annotation file: the one that is kept, unless the file has changed; else `read`, which is kept.

    A cache that cannot be written costs memory and time, and nothing else.
    """
    source = _source(path)
    if source is None or source["size"] < LARGE:
        return read()
    place = _place(path)
    kept = _open(place, source)
    if kept is not None:
        return kept
    index = read()
    with contextlib.suppress(Unwritable):
        _write(place, index, source)
    return _open(place, source) or index


class Texts(Sequence[str]):
    """Texts that lie one after another as UTF-8, each decoded when it is asked for."""

    def __init__(self, content: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> None:
        self.content, self.ends = content, ends

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """The same of any texts."""
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        ends = np.cumsum([len(each) for each in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...

    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        start = int(self.ends[place - 1]) if place else 0
        return self.content[start : int(self.ends[place])].tobytes().decode("utf-8", "surrogatepass")


def _source(path: Path) -> dict[str, Any] | None:
    """What tells a file from its earlier content; None where there is none, which `read` says better."""
    try:
        status = path.stat()
    except OSError:
        return None
    return {"format": FORMAT, "path": str(path.resolve()), "size": status.st_size, "changed": status.st_mtime_ns}


def _place(path: Path) -> Path:
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    return cache_folder() / "annotations" / f"{name}.index"


def _write(place: Path, index: AnnotationIndex, source: dict[str, Any]) -> None:
    names = Texts.of(index.file_names)
    columns: Columns = {
        "image_ids": index.image_ids,
        "sizes": index.sizes,
        "ends": index.ends,
        "ids": index.ids,
        "category": index.category,
        "boxes": index.boxes,
        "area": index.area,
        "iscrowd": index.iscrowd,
        "names": names.content,
        "name_ends": names.ends,
    }
    about = {
        "source": source,
        "categories": [[category.id, category.name] for category in index.categories],
        "columns": {name: [column.dtype.str, column.shape] for name, column in columns.items()},
    }
    with replacing(place) as temporary, temporary.open("wb") as file:
        file.write(json.dumps(about).encode() + b"\n")
        for column in columns.values():
            file.write(bytes(-file.tell() % ALIGNED))
            file.write(np.ascontiguousarray(column).data)


def _open(place: Path, source: dict[str, Any]) -> AnnotationIndex | None:
    """The index that is kept; None where there is none of this very file, or one that is damaged."""
    try:
        with place.open("rb") as file:
            about = json.loads(file.readline())
            start = file.tell()
        if about["source"] != source:
            return None
        columns = dict(_columns(np.memmap(place, dtype=np.uint8, mode="r"), start, about["columns"]))
        categories = [Category(number, name) for number, name in about["categories"]]
        names = Texts(columns.pop("names"), columns.pop("name_ends"))
        return AnnotationIndex(file_names=names, categories=categories, **columns)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _columns(
    content: npt.NDArray[np.uint8], start: int, described: dict[str, Any]
) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """(name, column) one after another; raises ValueError where the file ends too early."""
    for name, (kind, shape) in described.items():
        start += -start % ALIGNED
        end = start + int(np.prod(shape)) * np.dtype(kind).itemsize
        yield name, np.asarray(content[start:end]).view(kind).reshape(shape)
        start = end
    if start != len(content):
        raise ValueError("an index that is cut short")
