"""Boxes to the last digit: what a flip, a resize and a window do to them, against arithmetic by hand."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image

from detrbench.data import Sample, Target
from detrbench.data.transforms import MEAN, STD, Eval, Train, normalise


def sample_of(width: int, height: int, boxes: list[list[float]]) -> Sample:
    """A white rectangle on black for each box; labels count from 0."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    for x1, y1, x2, y2 in np.array(boxes, dtype=int).reshape(-1, 4):
        pixels[y1:y2, x1:x2] = 255
    array = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    crowd = np.zeros(len(array), dtype=bool)
    target = Target(1, np.arange(len(array)), array, crowd, np.ones(len(array), dtype=np.float32))
    return Sample(Image.fromarray(pixels), target, height, width)


def lit(image: torch.Tensor) -> list[int]:
    """x1, y1, x2, y2 of the white pixels."""
    rows, columns = np.nonzero((image[0] * STD[0] + MEAN[0]).numpy() > 0.5)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


class Draws(random.Random):
    """Gives the draws that a test wants: of `random()` in turn; a choice is its first, an integer its least."""

    def __init__(self, *shares: float) -> None:
        super().__init__(0)
        self.shares = list(shares)

    def random(self) -> float:
        return self.shares.pop(0)

    def choice(self, of: object) -> object:
        return of[0]  # type: ignore[index]

    def randint(self, least: int, greatest: int) -> int:
        return least


UNTOUCHED = Train(scales=(80,), longest=None, crop=False)  # an image of 100 x 80 stays at its size


def test_a_flip_mirrors_the_box_with_its_pixels() -> None:
    sample = sample_of(100, 80, [[0, 10, 30, 50]])
    image, target = UNTOUCHED(sample, Draws(0.49))
    assert lit(image) == [70, 10, 100, 50]
    assert target["boxes"].tolist() == [pytest.approx([0.85, 0.375, 0.3, 0.5])]
    image, target = UNTOUCHED(sample, Draws(0.5))
    assert lit(image) == [0, 10, 30, 50]
    assert target["boxes"].tolist() == [pytest.approx([0.15, 0.375, 0.3, 0.5])]


def test_labels_stay_with_their_boxes() -> None:
    sample = sample_of(100, 80, [[0, 0, 10, 10], [60, 40, 100, 80]])
    _, target = UNTOUCHED(sample, Draws(0.0))
    assert target["labels"].tolist() == [0, 1]
    assert target["boxes"].tolist() == [
        pytest.approx([0.95, 0.0625, 0.1, 0.125]),
        pytest.approx([0.2, 0.75, 0.4, 0.5]),
    ]


def test_boxes_are_fractions_of_the_image_and_centred() -> None:
    _, target = Eval(160, None)(sample_of(100, 80, [[10, 20, 40, 60]]))
    assert target["boxes"].tolist() == [pytest.approx([0.25, 0.5, 0.3, 0.5])]


def test_each_side_is_scaled_by_its_own_factor() -> None:
    # The cap makes the short side 569, and the long one is truncated to 1332: 1.3326 and 1.332 times as long.
    image, target = Eval(800, 1333)(sample_of(427, 1000, [[0, 0, 427, 1000], [0, 500, 427, 1000]]))
    assert image.shape[1:] == (1332, 569)
    assert target["boxes"].tolist() == [pytest.approx([0.5, 0.5, 1, 1]), pytest.approx([0.5, 0.75, 1, 0.5])]


def test_half_of_the_images_go_through_a_window_after_a_first_resize() -> None:
    transform = Train(scales=(50,), longest=None, crop_from=(160,), crop_range=(40, 60))
    sample = sample_of(100, 80, [[0, 0, 30, 30]])
    # Not flipped, cropped: to 200 x 160, then the window of 40 x 40 at the top left, then to 50 x 50.
    image, target = transform(sample, Draws(0.9, 0.49))
    assert image.shape[1:] == (50, 50)
    assert target["boxes"].tolist() == [pytest.approx([0.5, 0.5, 1, 1])]
    image, _ = transform(sample, Draws(0.9, 0.5))
    assert image.shape[1:] == (50, 62)


def test_windows_reach_their_greatest_size_and_every_place() -> None:
    transform = Train(scales=(100,), longest=None, crop_from=(100,), crop_range=(20, 60))
    view = type("View", (), {"image": Image.new("RGB", (70, 50))})()
    found = [transform._window(view, random.Random(seed)) for seed in range(400)]
    assert {(min(column), max(column)) for column in list(zip(*found))[2:]} == {(20, 60), (20, 50)}
    assert all(left + width <= 70 and top + height <= 50 for left, top, width, height in found)
    assert max(left + width for left, _, width, _ in found) == 70
    assert max(top + height for _, top, _, height in found) == 50


def test_channels_are_normalised_each_by_its_own_mean_and_deviation() -> None:
    sample = sample_of(40, 40, [])
    sample = Sample(Image.new("RGB", (40, 40), (255, 0, 51)), sample.target, 40, 40)
    image, _ = Eval(40, 40)(sample)
    assert image[:, 7, 9].tolist() == pytest.approx([(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225])


def test_training_scales_are_those_of_detr() -> None:
    assert Train().scales == (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    assert (Train().longest, Train().crop_from, Train().crop_range) == (1333, (400, 500, 600), (384, 600))
    assert (Eval().shortest, Eval().longest) == (800, 1333)


def test_every_value_is_normalised_in_float32_to_the_last_bit() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    image = Image.fromarray(torch.stack([values, values.flip(0), values.roll(7)], -1).reshape(16, 16, 3).numpy())
    channels = torch.stack([values, values.flip(0), values.roll(7)]).to(torch.float32) / 255
    mean, std = torch.tensor(MEAN).view(3, 1), torch.tensor(STD).view(3, 1)
    assert torch.equal(normalise(image).reshape(3, 256), (channels - mean) / std)
    assert torch.equal(normalise(image, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)).reshape(3, 256), channels)
