"""The papers' train and test transforms, after DETR's `datasets/transforms.py` and `datasets/coco.py`.

    test    resize the short side to 800, the long one to at most 1333; scale to [0, 1]; subtract ImageNet's mean and
            divide by its deviation.
    train   flip with probability 1/2; then either resize the short side to one of 480, 512, ..., 800, or (half the
            time) resize it to 400, 500 or 600, cut a window of 384 to 600 pixels a side, and resize that likewise.
            For images of another size than 800, all of these sides in proportion (`Train.up_to`).
    RT-DETR's images become squares of 640 pixels instead, whatever their shape (`Stretch`).

Images are resized as Pillow images (bilinear with antialiasing): resizing tensors without antialiasing costs AP.
Targets come out as {"labels": (n,) int64, "boxes": (n, 4) float32 cx cy w h in [0, 1]}, without crowd.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from detrbench.data.distortions import distorted
from detrbench.data.samples import Sample
from detrbench.data.sizes import CROP_FROM, CROP_RANGE, LONGEST, SHORTEST, TRAIN_SCALES, in_proportion, resized_size
from detrbench.models.pixels import MEAN, STD

Colour = tuple[float, float, float]  # red, green, blue


class Transform(Protocol):
    """From a sample to the detector's input; all randomness comes from `rng`."""

    def __call__(self, sample: Sample, rng: random.Random) -> tuple[Tensor, dict[str, Tensor]]: ...


@dataclass(frozen=True)
class Eval:
    """The test transform: short side `shortest`, long side at most `longest`, in pixels.

    What is subtracted from values in [0, 1] and what they are divided by is ImageNet's, unless a detector from
    elsewhere has its own.
    """

    shortest: int = SHORTEST
    longest: int | None = LONGEST
    mean: Colour = MEAN
    std: Colour = STD

    def __call__(self, sample: Sample, rng: random.Random | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        return _View.of(sample).resize(self.shortest, self.longest).tensors(self.mean, self.std)


@dataclass(frozen=True)
class Stretch:
    """To one size in pixels, whatever the proportions: the test transform of RT-DETR, and of some from elsewhere."""

    height: int
    width: int
    mean: Colour = MEAN
    std: Colour = STD

    def __call__(self, sample: Sample, rng: random.Random | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        return _View.of(sample).stretch((self.width, self.height)).tensors(self.mean, self.std)


def evaluated(shortest: int, longest: int, stretch: bool) -> Eval | Stretch:
    """The test transform at that size; a stretched image is a square of `shortest` pixels."""
    return Stretch(shortest, shortest) if stretch else Eval(shortest, longest)


@dataclass(frozen=True)
class Train:
    """The training transform.

    Args:
        scales: lengths of the short side to choose from, in pixels.
        longest: cap of the long side, in pixels.
        crop: whether half of the images go through a random window first.
        crop_from: short sides to choose from before the window is cut.
        crop_range: least and greatest side of the window.
        stretch: images become squares of one of these scales, whatever their proportions.
        distort: see `distortions`; before anything else.
    """

    scales: Sequence[int] = TRAIN_SCALES
    longest: int | None = LONGEST
    crop: bool = True
    crop_from: Sequence[int] = CROP_FROM
    crop_range: tuple[int, int] = CROP_RANGE
    stretch: bool = False
    distort: bool = False

    @classmethod
    def up_to(
        cls, scales: Sequence[int], longest: int, crop: bool, stretch: bool = False, distort: bool = False
    ) -> Train:
        """With windows that are to the largest of `scales` what DETR's are to 800 pixels."""
        least, greatest = in_proportion(CROP_RANGE, max(scales))
        return cls(scales, longest, crop, in_proportion(CROP_FROM, max(scales)), (least, greatest), stretch, distort)

    def __call__(self, sample: Sample, rng: random.Random) -> tuple[Tensor, dict[str, Tensor]]:
        view = _View.of(sample)
        if self.distort:
            view = _View(*distorted(view.image, view.labels, view.boxes, rng))
        if rng.random() < 0.5:
            view = view.flip()
        if self.crop and rng.random() < 0.5:
            view = view.resize(rng.choice(self.crop_from), None)
            view = view.crop(*self._window(view, rng))
        side = rng.choice(self.scales)
        return (view.stretch((side, side)) if self.stretch else view.resize(side, self.longest)).tensors()

    def _window(self, view: _View, rng: random.Random) -> tuple[int, int, int, int]:
        """(left, top, width, height) of a window of random size at a random place, both uniform."""
        least, greatest = self.crop_range
        image_width, image_height = view.image.size
        width = rng.randint(min(least, image_width), min(greatest, image_width))
        height = rng.randint(min(least, image_height), min(greatest, image_height))
        return rng.randint(0, image_width - width), rng.randint(0, image_height - height), width, height


@dataclass(frozen=True)
class _View:
    """An image on its way, with the labels (n,) and x1 y1 x2 y2 boxes (n, 4) that are seen in it."""

    image: Image.Image
    labels: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]

    @classmethod
    def of(cls, sample: Sample) -> _View:
        single = ~sample.target.iscrowd
        return cls(sample.image, sample.target.labels[single], sample.target.boxes[single])

    def flip(self) -> _View:
        boxes = self.boxes.copy()
        boxes[:, [0, 2]] = self.image.width - self.boxes[:, [2, 0]]
        return _View(self.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), self.labels, boxes)

    def resize(self, shortest: int, longest: int | None) -> _View:
        return self.stretch(resized_size(*self.image.size, shortest, longest))

    def stretch(self, size: tuple[int, int]) -> _View:
        """To a (width, height)."""
        if size == self.image.size:
            return self
        factors = (size[0] / self.image.width, size[1] / self.image.height)  # differ: the long side is truncated
        boxes = self.boxes * np.array(factors * 2, dtype=np.float32)
        return _View(self.image.resize(size, Image.Resampling.BILINEAR), self.labels, boxes)

    def crop(self, left: int, top: int, width: int, height: int) -> _View:
        image = self.image.crop((left, top, left + width, top + height))
        boxes = self.boxes - np.array([left, top, left, top], dtype=np.float32)
        boxes = boxes.clip(0, np.array([width, height, width, height], dtype=np.float32))
        seen = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        return _View(image, self.labels[seen], boxes[seen])

    def tensors(self, mean: Colour = MEAN, std: Colour = STD) -> tuple[Tensor, dict[str, Tensor]]:
        x1, y1, x2, y2 = self.boxes.T
        boxes = np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=1)
        boxes = boxes / np.array(self.image.size * 2, dtype=np.float32)
        return normalise(self.image, mean, std), {
            "labels": torch.from_numpy(self.labels),
            "boxes": torch.from_numpy(boxes),
        }


def normalise(image: Image.Image, mean: Colour = MEAN, std: Colour = STD) -> Tensor:
    """(3, H, W) float32 of an RGB image: [0, 1], less the mean, over the deviation, by channel."""
    pixels = np.asarray(image)  # (H, W, 3) uint8
    normalised = np.empty((3, *pixels.shape[:2]), dtype=np.float32)
    for channel, values in enumerate(_normalised(tuple(mean), tuple(std))):
        np.take(values, pixels[:, :, channel], out=normalised[channel], mode="clip")  # which spares a check
    return torch.from_numpy(normalised)


@functools.lru_cache(maxsize=8)
def _normalised(mean: Colour, std: Colour) -> npt.NDArray[np.float32]:
    """(3, 256) what becomes of each value of each channel."""
    values = torch.arange(256, dtype=torch.float32).div_(255)
    found: npt.NDArray[np.float32] = (values - torch.tensor(mean).view(3, 1)).div_(torch.tensor(std).view(3, 1)).numpy()
    return found
