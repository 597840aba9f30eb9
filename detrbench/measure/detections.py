"""Detections as columns, and the file that they are kept in. Imports no torch.

`detections.json.gz` has COCO's result format, so that any other tool can read it. Its gzip header names the file that
was packed, `detections-<key>.json`: the key says which detector, weights and images the detections are of.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detrbench.data import streaming
from detrbench.errors import DataError
from detrbench.files import is_special, replacing

COLUMNS = ("image_id", "category_id", "bbox", "score")  # of COCO's result format
ENTRIES = 10_000  # written at a time


@dataclass(frozen=True)
class Detections:
    """D detections of any number of images, in any order; equal scores of one image rank in this order.

    Attributes:
        image_ids: (D,) the data set's ids.
        category_ids: (D,) the data set's ids.
        boxes: (D, 4) float64, x, y, width, height in pixels of the stored image.
        scores: (D,) float64.
    """

    image_ids: npt.NDArray[np.int64]
    category_ids: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def of(cls, results: Iterable[Mapping[str, Any]]) -> Detections:
        """From COCO's result format: image_id, category_id, bbox [x, y, width, height], score."""
        results = list(results)
        image_ids, category_ids, boxes, scores = ([each[name] for each in results] for name in COLUMNS)
        return cls(
            np.array(image_ids, dtype=np.int64),
            np.array(category_ids, dtype=np.int64),
            np.array(boxes, dtype=np.float64).reshape(-1, 4),
            np.array(scores, dtype=np.float64),
        )

    @classmethod
    def concatenated(cls, parts: Iterable[Detections]) -> Detections:
        """All of them, one after the other."""
        whole = [cls.of([]), *parts]
        return cls(*(np.concatenate([getattr(part, name) for part in whole]) for name in cls.__dataclass_fields__))

    def results(self) -> list[dict[str, Any]]:
        """In COCO's result format."""
        columns = (self.image_ids, self.category_ids, self.boxes, self.scores)
        return [dict(zip(COLUMNS, row)) for row in zip(*(column.tolist() for column in columns))]

    def chosen(self, which: npt.NDArray[Any] | slice) -> Detections:
        """Those that a mask or indices name."""
        return Detections(self.image_ids[which], self.category_ids[which], self.boxes[which], self.scores[which])

    def best(self, count: int) -> Detections:
        """The `count` of highest score of each image."""
        order = np.lexsort((-self.scores, self.image_ids))  # stable: equal scores stay in their order
        return self.chosen(np.sort(order[ranks(self.image_ids[order]) < count]))


def ranks(groups: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """(D,) sorted group numbers -> the place of each entry within its group, from 0."""
    starts = np.flatnonzero(np.diff(groups, prepend=groups[:1] - 1)) if len(groups) else np.zeros(0, dtype=np.int64)
    sizes = np.diff(starts, append=len(groups))
    return np.arange(len(groups)) - np.repeat(starts, sizes)


def write(path: Path, detections: Detections, key: str) -> None:
    """Writes the file whole or not at all: equal detections give equal bytes. Raises Unwritable."""
    name = _packed_name(key)
    with (
        replacing(path) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile(name, "wb", compresslevel=3, fileobj=raw, mtime=0) as packed,
    ):
        packed.write(b"[")
        for start in range(0, len(detections), ENTRIES):
            entries = json.dumps(detections.chosen(slice(start, start + ENTRIES)).results(), separators=(",", ":"))
            packed.write((b"," if start else b"") + entries[1:-1].encode())
        packed.write(b"]")


def read(path: Path, key: str) -> Detections | None:
    """The detections that were kept under that key; None where the file is missing, broken, or of another key."""
    name = _packed_name(key).encode() + b"\0"
    try:
        with path.open("rb") as raw:
            if raw.read(10)[3:4] != b"\x08" or raw.read(len(name)) != name:  # flags of the header: it has a name
                return None
            raw.seek(0)
            with gzip.open(raw) as file:
                return Detections.concatenated(Detections.of(batch) for _, batch in streaming.batches(file))
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error):
        return None


def read_results(path: Path) -> Detections:
    """A user's file in COCO's result format, as it is or packed with gzip.

    Raises:
        DataError: not such a file; says what is wrong, and at which entry.
    """
    parts, count = [], 0
    if is_special(path):
        raise DataError(f"{path}: expected a file, found a device or a pipe")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for key, entries in streaming.batches(file):
                if key:
                    raise DataError(f"{path}: expected a list of detections, found an object", hint=_FORMAT)
                parts.append(_checked(path, entries, count))
                count += len(entries)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}", hint=_FORMAT) from error
    if not count:
        raise DataError(f"{path}: no detections", hint=_FORMAT)
    return Detections.concatenated(parts)


_FORMAT = "COCO's result format: [{image_id, category_id, bbox: [x, y, width, height] in pixels, score}, ...]"


def _checked(path: Path, entries: list[Any], before: int) -> Detections:
    """The entries as columns; `before` entries came before them."""
    for number, entry in enumerate(entries, start=before + 1):
        why = _problem(entry)
        if why:
            raise DataError(f"{path}: entry {number}: {why}", hint=_FORMAT)
    return Detections.of(entries)


def _problem(entry: Any) -> str | None:
    """What is wrong with an entry, in words."""
    if not isinstance(entry, dict):
        return f"expected an object, found {entry!r:.40}"
    for name in COLUMNS:
        if name not in entry:
            return f"no {name!r}"
    for name in COLUMNS[:2]:
        if type(entry[name]) is not int:
            return f"{name}: expected an integer, found {entry[name]!r:.40}"
    box = entry["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        return f"bbox: expected 4 numbers, found {box!r:.60}"
    return None if _is_number(entry["score"]) else f"score: expected a number, found {entry['score']!r:.40}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _packed_name(key: str) -> str:
    return f"detections-{key}.json"
