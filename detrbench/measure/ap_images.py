"""What each image contributed to AP, kept beside the accuracy record so that two detectors can be compared in pairs.

`accuracy-images.npz` holds, by protocol, the matches of `ap_interval` without the detections that no resample can ever
need: those ranked after the last hit of their class at every IoU threshold, where precision is not looked at any more.
Beside them stand the bootstrap replicates behind the record's interval: on COCO val2017 drawing them again takes about
a minute a detector, and a report compares many pairs. Imports no torch.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from detrbench.measure import ap_interval
from detrbench.measure.ap_interval import ClassMatches, Matches, Replicates
from detrbench.statistics import Evidence


@dataclass(frozen=True)
class ImageMatches:
    """Matches with the images they are of, and the key of the accuracy record they belong to.

    `drawn` are the replicates of `ap_interval.bootstrap` with its default seed; None in files that were written
    without them.
    """

    key: str
    images: str  # a hash of the image ids in order and of the objects in each: equal means the same images
    matches: Matches
    drawn: Replicates | None = None


def paired_difference(first: ImageMatches, second: ImageMatches, of: Literal["ap", "ap50"] = "ap") -> Evidence:
    """`ap_interval.paired_difference` with the replicates that are kept, drawing only those that are not.

    Raises:
        ValueError: the two were not scored on the same images.
    """
    if first.images != second.images:
        raise ValueError("not the same images")
    drawn = [each.drawn or ap_interval.bootstrap(each.matches) for each in (first, second)]
    return ap_interval.paired_difference(first.matches, second.matches, of, drawn=drawn)


def mean_replicates(found: Sequence[ImageMatches], of: Literal["ap", "ap50"]) -> npt.NDArray[np.float64]:
    """(R,) bootstrap replicates of the mean AP of several detectors on the same images, drawn together."""
    drawn = [each.drawn or ap_interval.bootstrap(each.matches) for each in found]
    return np.mean([getattr(each, of) for each in drawn], axis=0)


def trimmed(one: ClassMatches) -> ClassMatches:
    """Without the detections that come after the last hit: AP is the same under all weights."""
    useful = np.flatnonzero((one.hit & ~one.ignored).any(axis=0))
    end = int(useful[-1]) + 1 if len(useful) else 0
    return ClassMatches(one.image[:end], one.hit[:, :end], one.ignored[:, :end], one.objects)


def pack(
    found: Mapping[str, Matches], image_ids: list[int], key: str, drawn: Mapping[str, Replicates] | None = None
) -> bytes:
    """The file's bytes: equal matches give equal bytes.

    Args:
        found: by protocol; at T thresholds, N images and C classes with D detections in all.
        image_ids: in the order of the matches' images.
        key: of the accuracy record.
        drawn: by protocol, the replicates of `ap_interval.bootstrap` of the same matches.
    """
    arrays: dict[str, np.ndarray] = {"key": np.array(key), "image_ids": np.array(image_ids, dtype=np.int64)}
    for protocol, matches in found.items():
        classes = [trimmed(one) for one in matches.classes]
        arrays[f"{protocol}/thresholds"] = np.array(len(classes[0].hit) if classes else 0)
        arrays[f"{protocol}/detections"] = np.array([len(one.image) for one in classes], dtype=np.int32)  # (C,)
        arrays[f"{protocol}/objects"] = _stack([one.objects for one in classes], 0).astype(np.uint16)  # (C, N)
        arrays[f"{protocol}/image"] = np.concatenate([[], *(one.image for one in classes)]).astype(np.int32)  # (D,)
        for name in ("hit", "ignored"):  # (T, D) bits
            parts = [getattr(one, name) for one in classes]
            bits = np.concatenate(parts, axis=1) if parts else np.zeros((0, 0), dtype=bool)
            arrays[f"{protocol}/{name}"] = np.packbits(bits)
    for protocol, replicates in (drawn or {}).items():
        arrays[f"{protocol}/drawn"] = np.stack([replicates.ap, replicates.ap50])  # (2, R)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _stack(arrays: list[np.ndarray], width: int) -> np.ndarray:
    return np.stack(arrays) if arrays else np.zeros((0, width))


def read(path: Path, protocol: str) -> ImageMatches | None:
    """The matches of one protocol; None where the file is missing, broken or has no such protocol."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if f"{protocol}/thresholds" not in stored:
                return None
            part = {name: stored[f"{protocol}/{name}"] for name in _PARTS}
            key, image_ids = str(stored["key"]), stored["image_ids"]
            drawn = Replicates(*stored[f"{protocol}/drawn"]) if f"{protocol}/drawn" in stored else None
        images = hashlib.sha256(image_ids.tobytes() + part["objects"].tobytes()).hexdigest()
        return ImageMatches(key, images, _unpack(part, len(image_ids)), drawn)
    except (OSError, TypeError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


_PARTS = ("thresholds", "detections", "objects", "image", "hit", "ignored")


def _unpack(part: Mapping[str, np.ndarray], num_images: int) -> Matches:
    shape = int(part["thresholds"]), int(part["detections"].sum())
    hit, ignored = (
        np.unpackbits(part[name], count=shape[0] * shape[1]).reshape(shape).astype(bool) for name in ("hit", "ignored")
    )
    ends = part["detections"].cumsum()
    classes = []
    for objects, start, end in zip(part["objects"], ends - part["detections"], ends):
        image = part["image"][start:end].astype(np.int64)
        classes.append(ClassMatches(image, hit[:, start:end], ignored[:, start:end], objects.astype(np.int64)))
    return Matches(num_images, classes)
