"""Generated data: textured shapes of many sizes on cluttered ground, for training and testing without downloads.

Twelve classes, told apart by outline. Texture helps as often as `texture_cue` says, colour never does.
Objects overlap, but at least 35 % of each stays visible and inside the image; boxes and areas are those of the
visible pixels, as an annotator who sees only the picture would draw them. Distractor blobs and lines carry no label.

An image depends on (seed, split, index), the fields of `DataSpec` that shape it, and `GENERATOR_VERSION` only.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from detrbench.data import drawing
from detrbench.data.drawing import Floats, Random
from detrbench.data.samples import Category, Sample, Target
from detrbench.data.seeding import derive_seed
from detrbench.data.spec import DataSpec, Split

GENERATOR_VERSION = 1
"""Counts up whenever the same spec gives other images; part of every fingerprint."""

LARGEST = 0.6
"""Longer side of the largest object over the longer side of the image."""

LEAST_VISIBLE = 0.35
CACHE_BYTES = 256 * 2**20

NAMES = tuple(drawing.OUTLINES)
TEXTURE_NAMES = tuple(drawing.TEXTURES)


class ShapesDataset:
    """One split of the generated data. Rendered images are kept while they fit in 256 MiB; reading is thread-safe.

    Args:
        spec: see `DataSpec`; of kind `shapes`.
        split: `train` and `val` share no image.
    """

    categories = [Category(number, name) for number, name in enumerate(NAMES, start=1)]  # noqa: RUF012 (never changed)

    def __init__(self, spec: DataSpec, split: Split) -> None:
        length = spec.num_train if split == "train" else spec.num_val
        self.spec, self.split = spec, split
        self.image_ids = list(range(1, length + 1))[: spec.limit]
        self._scenes: dict[int, _Scene] = {}
        self._bytes_left = CACHE_BYTES
        self._lock = threading.Lock()

    @property
    def num_classes(self) -> int:
        return len(NAMES) + 1 if self.spec.labels == "category_id" else len(NAMES)

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        return np.array([self._scene(index).pixels.shape[1::-1] for index in range(len(self))])

    @cached_property
    def fingerprint(self) -> str:
        names = ("labels", "image_size", "seed", "max_objects", "min_size", "clutter", "texture_cue")
        facts = {name: getattr(self.spec, name) for name in names}
        facts |= {"generator": GENERATOR_VERSION, "split": self.split, "images": len(self)}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Sample:
        image_id, scene = self.image_ids[index], self._scene(index)
        labels = scene.classes if self.spec.labels == "contiguous" else scene.classes + 1
        crowd = np.zeros(len(labels), dtype=np.bool_)
        target = Target(image_id, labels, scene.boxes, crowd, scene.areas)
        height, width = scene.pixels.shape[:2]
        return Sample(Image.fromarray(scene.pixels), target, height, width)

    def coco_ground_truth(self) -> dict[str, Any]:
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index, image_id in enumerate(self.image_ids):
            scene = self._scene(index)
            height, width = scene.pixels.shape[:2]
            images.append({"id": image_id, "file_name": f"{image_id:012d}.png", "width": width, "height": height})
            for number, box, area in zip(
                scene.classes.tolist(), scene.boxes.tolist(), scene.areas.tolist(), strict=True
            ):
                x1, y1, x2, y2 = box
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": number + 1,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": area,
                        "iscrowd": 0,
                        "segmentation": [],
                    }
                )
        categories = [{"id": category.id, "name": category.name} for category in self.categories]
        return {"images": images, "annotations": annotations, "categories": categories}

    def to_category_id(self, label: int) -> int:
        return label if self.spec.labels == "category_id" else self.categories[label].id

    def _scene(self, index: int) -> _Scene:
        image_id = self.image_ids[index]
        scene = self._scenes.get(image_id)
        if scene is None:
            scene = _render(self.spec, self.split, image_id)
            with self._lock:
                if scene.pixels.nbytes <= self._bytes_left and image_id not in self._scenes:
                    self._scenes[image_id] = scene
                    self._bytes_left -= scene.pixels.nbytes
        return scene


@dataclass(frozen=True)
class _Scene:
    """pixels (H, W, 3) uint8; of the n objects classes (n,) int64, visible boxes (n, 4) x1 y1 x2 y2, areas (n,)."""

    pixels: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    areas: npt.NDArray[np.float32]


def _render(spec: DataSpec, split: Split, image_id: int) -> _Scene:
    seed = derive_seed("shapes", GENERATOR_VERSION, spec.seed, split, image_id)
    rng = Random(np.array([seed & 0xFFFFFFFF, seed >> 32], dtype=np.uint32))
    long, short = spec.image_size, round(spec.image_size * rng.uniform(0.75, 1.0))
    width, height = (long, short) if rng.random_sample() < 0.5 else (short, long)
    canvas = drawing.background(rng, width, height, spec.clutter)
    _draw_distractors(rng, canvas, spec)
    classes, owner = _draw_objects(rng, canvas, spec)
    for _ in range(rng.randint(0, 1 + round(3 * spec.clutter))):
        drawing.draw_line(rng, canvas, width=max(1, spec.image_size // 120))
    grain = rng.standard_normal(canvas.shape[:2]).astype(np.float32) * np.float32(2 + 10 * spec.clutter)
    canvas += grain[..., None]
    pixels = canvas.clip(0, 255, out=canvas).astype(np.uint8)
    boxes = np.array([_extent(owner == number) for number in range(len(classes))], dtype=np.float32)
    areas = np.array([(owner == number).sum() for number in range(len(classes))], dtype=np.float32)
    return _Scene(pixels, np.array(classes, dtype=np.int64), boxes.reshape(-1, 4), areas)


def _draw_distractors(rng: Random, canvas: Floats, spec: DataSpec) -> None:
    """Blobs and lines behind the objects, without label."""
    height, width = canvas.shape[:2]
    for _ in range(rng.randint(0, 1 + round(8 * spec.clutter))):
        mask = drawing.blob_mask(rng, _log_uniform(rng, spec.min_size, 0.5 * spec.image_size))
        left, top = rng.randint(-10, width), rng.randint(-10, height)
        around = canvas[min(max(top, 0), height - 1), min(max(left, 0), width - 1)]
        first, second = around + rng.uniform(-45, 45, 3), around + rng.uniform(-45, 45, 3)
        texture = TEXTURE_NAMES[rng.randint(len(TEXTURE_NAMES))]
        patch = drawing.textured(rng, texture, mask.shape, first, second)
        drawing.paste(canvas, mask, patch, left, top)
    for _ in range(rng.randint(0, 1 + round(4 * spec.clutter))):
        drawing.draw_line(rng, canvas, width=rng.randint(1, 2 + spec.image_size // 50))


def _draw_objects(rng: Random, canvas: Floats, spec: DataSpec) -> tuple[list[int], npt.NDArray[np.int16]]:
    """Draws up to `max_objects` objects; returns their classes and, for each pixel, whose it is or -1."""
    owner = np.full(canvas.shape[:2], -1, dtype=np.int16)
    classes: list[int] = []
    covered: list[int] = []  # pixels of each object, hidden ones and those outside the image included
    wanted = rng.randint(1, spec.max_objects + 1)
    for _ in range(4 * wanted):  # a place that would hide too much is given up
        if len(classes) == wanted:
            break
        number = int(rng.randint(len(NAMES)))
        size, aspect = _log_uniform(rng, spec.min_size, LARGEST * spec.image_size), _log_uniform(rng, 0.75, 1.33)
        mask = drawing.shape_mask(NAMES[number], size, aspect, rng.uniform(-20, 20))
        left, top = _place(rng, canvas.shape, mask.shape)
        solid = mask > 0.5
        after = _claim(owner, solid, left, top, len(classes))
        total = [*covered, int(solid.sum())]
        seen = np.bincount(after[after >= 0], minlength=len(total))
        if (seen < LEAST_VISIBLE * np.array(total)).any() or seen[-1] == 0:
            continue
        owner, covered = after, total
        classes.append(number)
        _draw_object(rng, canvas, spec, number, mask, left, top)
    return classes, owner


def _draw_object(rng: Random, canvas: Floats, spec: DataSpec, number: int, mask: Floats, left: int, top: int) -> None:
    there, _ = drawing.overlap(canvas.shape, mask.shape, left, top)
    around = canvas[there].mean(axis=(0, 1))
    least = 110 - 60 * spec.clutter
    first = drawing.contrasting(rng, around, least)
    second = drawing.contrasting(rng, first, 40)
    own = rng.random_sample() < spec.texture_cue
    texture = TEXTURE_NAMES[number if own else rng.randint(len(TEXTURE_NAMES))]
    drawing.paste(canvas, mask, drawing.textured(rng, texture, mask.shape, first, second), left, top)


def _place(rng: Random, canvas: tuple[int, ...], mask: tuple[int, ...]) -> tuple[int, int]:
    """(left, top), uniform where up to a fifth of the object's width and height hangs out of the image."""
    left, top = (
        rng.randint(-(mask[axis] // 5), max(canvas[axis] - mask[axis] + mask[axis] // 5, 0) + 1) for axis in (1, 0)
    )
    return int(left), int(top)


def _claim(
    owner: npt.NDArray[np.int16], solid: npt.NDArray[np.bool_], left: int, top: int, number: int
) -> npt.NDArray[np.int16]:
    after = owner.copy()
    there, here = drawing.overlap(owner.shape, solid.shape, left, top)
    after[there][solid[here]] = number
    return after


def _extent(seen: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(seen.any(axis=0)), np.flatnonzero(seen.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _log_uniform(rng: Random, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
