"""One image and what a detector saw and did in it, as arrays; a few of them fit in a small file.

Shapes: S tokens (all levels, fine to coarse, row-major), L levels, E encoder layers, M heads, P points. Places are x, y
and boxes x1, y1, x2, y2, both as fractions of the image.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[Any]

JPEG_QUALITY = 85
STEPS = 255  # attention and scores are stored in so many steps


@dataclass(frozen=True)
class Objects:
    """n boxes with their labels; annotated ones have the score 1.

    Attributes:
        boxes: (n, 4).
        labels: (n,).
        scores: (n,), best first.
    """

    boxes: Array
    labels: Array
    scores: Array

    def above(self, threshold: float) -> Objects:
        """Those with at least that score."""
        sure = self.scores >= threshold
        return Objects(self.boxes[sure], self.labels[sure], self.scores[sure])


@dataclass(frozen=True)
class Sampling:
    """Where k queries of one layer look, each chosen for an object.

    Attributes:
        boxes: (k, 4) the objects.
        centres: (k, 2) where each query is.
        locations: (k, M, L, P, 2).
        weights: (k, M, L, P), adding up to 1 in each head.
    """

    boxes: Array
    centres: Array
    locations: Array
    weights: Array


@dataclass(frozen=True)
class Paths:
    """The way of k queries through T - 1 decoder layers: as the detector runs, and without self-attention.

    Attributes:
        target: (4,) an object; the queries are those that come nearest to it in either run.
        centres: (2, T, k, 2), from where they start to their last box.
        arrived: (2, k) bool, whether the last box overlaps the object at IoU 0.5 or more.
        on_target: (2, T - 1) how many of all queries overlap it so much after each layer.
        num_queries: of the detector.
    """

    target: Array
    centres: Array
    arrived: Array
    on_target: Array
    num_queries: int


@dataclass(frozen=True)
class Scene:
    """One image, what the detector saw and did.

    Attributes:
        name: what the image is called.
        pixels: (h, w, 3) uint8.
        names: label -> class.
        found: detections, best first.
        truth: annotated objects, None where nobody annotated the image.
        levels: (L, 2) height and width of each level in tokens.
        kept: (E, S) bool, which tokens each encoder layer updates.
        object_tokens: (E, S) bool, which of them a dual attention lets attend to each other; (0, S) without one.
        scores: (S,) in 0..1, by which tokens were kept; (0,) where all are.
        attention: (S,) in 0..1, the square root of the decoder's attention mass over the largest of any token.
        corr: share of that mass on kept tokens.
        shares: (L,) share of the mass on each level.
        corr_by_level: (L,) share of a level's mass on its kept tokens, NaN where it has none.
        decoder: sampling of the last decoder layer.
        encoder: sampling of the last encoder layer; None without sampled attention there.
        paths: None where there is nothing to follow.
    """

    name: str
    pixels: Array
    names: dict[int, str]
    found: Objects
    truth: Objects | None
    levels: Array
    kept: Array
    object_tokens: Array
    scores: Array
    attention: Array
    corr: float
    shares: Array
    corr_by_level: Array
    decoder: Sampling
    encoder: Sampling | None
    paths: Paths | None

    @property
    def ever_kept(self) -> Array:
        """(S,) bool: any layer updates the token."""
        return np.asarray(self.kept.any(axis=0))

    def by_level(self, values: Array) -> list[Array]:
        """(..., S) -> one (..., height, width) array a level."""
        ends = np.cumsum(self.levels.prod(1))[:-1]
        parts = np.split(values, ends, axis=-1)
        return [part.reshape(*part.shape[:-1], h, w) for part, (h, w) in zip(parts, self.levels, strict=True)]

    def named(self, label: int) -> str:
        """A class as a reader knows it."""
        return self.names.get(int(label), f"class {label}")


def pack(scenes: Sequence[Scene], key: str) -> bytes:
    """The bytes of a file with these scenes; equal scenes give equal bytes.

    Args:
        scenes: pixels are kept as JPEG, attention and scores in 255 steps, places in half precision.
        key: of the record that belongs to them.
    """
    arrays: dict[str, Array] = {"key": np.array(key), "scenes": np.array(len(scenes))}
    for index, scene in enumerate(scenes):
        arrays |= {f"{index}/{name}": array for name, array in _flat(scene)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def read(path: Path) -> tuple[str, list[Scene]] | None:
    """(key, scenes) of a file; None where it is missing, broken or not ours."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        return str(arrays["key"]), [_scene(_under(arrays, f"{i}/")) for i in range(int(arrays["scenes"]))]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


_GROUPS = {"found": Objects, "truth": Objects, "decoder": Sampling, "encoder": Sampling, "paths": Paths}
_BITS = ("kept", "object_tokens")
_SHADES = ("scores", "attention")


def _flat(scene: Scene) -> Iterator[tuple[str, Array]]:
    words = {"name": scene.name, "names": {str(label): name for label, name in sorted(scene.names.items())}}
    yield "words", np.array(json.dumps(words))
    yield "corr", np.array(scene.corr, np.float32)
    yield "pixels", _jpeg(scene.pixels)
    for name in ("levels", "shares", "corr_by_level"):
        yield name, getattr(scene, name)
    for name in _BITS:
        yield name, np.packbits(getattr(scene, name), axis=1)
    for name in _SHADES:
        yield name, np.rint(getattr(scene, name) * STEPS).astype(np.uint8)
    for name in _GROUPS:
        group = getattr(scene, name)
        for field in fields(group) if group is not None else ():
            value = np.asarray(getattr(group, field.name))
            yield f"{name}/{field.name}", value.astype(np.float16) if value.dtype.kind == "f" else value


def _scene(arrays: Mapping[str, Array]) -> Scene:
    words = json.loads(str(arrays["words"]))
    tokens = int(arrays["levels"].prod(1).sum())
    read: dict[str, Any] = {name: arrays[name] for name in ("levels", "shares", "corr_by_level")}
    read |= {name: np.unpackbits(arrays[name], axis=1, count=tokens).astype(bool) for name in _BITS}
    read |= {name: arrays[name].astype(np.float32) / STEPS for name in _SHADES}
    read |= {name: _group(made, _under(arrays, f"{name}/")) for name, made in _GROUPS.items()}
    return Scene(
        name=words["name"],
        names={int(label): name for label, name in words["names"].items()},
        pixels=np.array(Image.open(io.BytesIO(arrays["pixels"].tobytes())).convert("RGB")),
        corr=float(arrays["corr"]),
        **read,
    )


def _group(made: type, arrays: Mapping[str, Array]) -> Any:
    if not arrays:
        return None
    return made(**{name: _widened(array) for name, array in arrays.items()})


def _widened(array: Array) -> Any:
    if array.ndim == 0:
        return array.item()
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def _under(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _jpeg(pixels: Array) -> Array:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return np.frombuffer(buffer.getvalue(), np.uint8)
