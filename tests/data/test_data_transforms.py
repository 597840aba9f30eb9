"""The papers' transforms: sizes, boxes that follow the pixels, crops, flips, and determinism."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from detrbench.data import Sample, Target
from detrbench.data.seeding import derive_seed
from detrbench.data.sizes import TRAIN_SCALES, in_proportion
from detrbench.data.transforms import MEAN, STD, Eval, Stretch, Train, evaluated, normalise


def sample_of(width, height, boxes, iscrowd=None):
    """An image that is black but for the boxes, which are white."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    for x1, y1, x2, y2 in boxes:
        pixels[y1:y2, x1:x2] = 255
    boxes = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    crowd = np.zeros(len(boxes), dtype=bool) if iscrowd is None else np.array(iscrowd)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    target = Target(1, np.arange(len(boxes), dtype=np.int64), boxes, crowd, area)
    return Sample(Image.fromarray(pixels), target, height, width)


def seen_box(image, least=0.5):
    """Normalised cx cy w h of what is brighter than half grey."""
    bright = (image[0] * STD[0] + MEAN[0]) > least
    rows, columns = torch.where(bright.any(1))[0], torch.where(bright.any(0))[0]
    height, width = bright.shape
    x1, x2, y1, y2 = columns[0] / width, (columns[-1] + 1) / width, rows[0] / height, (rows[-1] + 1) / height
    return torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])


def test_eval_resizes_and_normalises():
    image, target = Eval()(sample_of(640, 480, [[64, 48, 320, 240]]))
    assert image.shape == (3, 800, 1066)
    assert image.dtype == torch.float32
    torch.testing.assert_close(target["boxes"], torch.tensor([[0.3, 0.3, 0.4, 0.4]]))
    assert target["labels"].tolist() == [0]
    assert target["labels"].dtype == torch.int64
    torch.testing.assert_close(seen_box(image), target["boxes"][0], atol=2e-3, rtol=0)


def test_stretched_images_lose_their_proportions():
    image, target = Stretch(96, 96)(sample_of(64, 48, [[8, 12, 40, 36]]))
    assert image.shape == (3, 96, 96)
    torch.testing.assert_close(target["boxes"], torch.tensor([[0.375, 0.5, 0.5, 0.5]]))
    torch.testing.assert_close(seen_box(image), target["boxes"][0], atol=1e-2, rtol=0)
    assert (evaluated(96, 96, True), evaluated(96, 128, False)) == (Stretch(96, 96), Eval(96, 128))


def test_stretched_images_train_at_one_of_the_scales():
    train = Train.up_to([64, 96], 96, crop=False, stretch=True)
    sizes = {tuple(train(sample_of(64, 48, [[8, 12, 40, 36]]), random.Random(seed))[0].shape[1:]) for seed in range(8)}
    assert sizes == {(64, 64), (96, 96)}


def test_distorted_boxes_follow_their_objects():
    train = Train([120], 120, crop=False, stretch=True, distort=True)
    sample, seen, sizes = sample_of(80, 60, [[10, 10, 50, 40], [78, 58, 79, 59]]), 0, set()
    for seed in range(40):
        image, target = train(sample, random.Random(seed))
        assert image.shape == (3, 120, 120)
        if target["labels"].tolist() == [0]:  # the other is soon cut away, or hidden beside the large one
            seen += 1
            sizes.add(round(float(target["boxes"][0, 2]), 2))
    assert seen > 5
    assert len(sizes) > 5  # zoomed and cut
    first, second, third = (train(sample, random.Random(seed)) for seed in (3, 3, 4))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1]["boxes"], second[1]["boxes"])
    assert not torch.equal(first[0], third[0])


def test_distorted_objects_are_where_their_boxes_are():
    train, checked = Train([120], 120, crop=False, stretch=True, distort=True), 0
    for seed in range(30):
        image, target = train(sample_of(80, 60, [[10, 10, 50, 40]]), random.Random(seed))
        values = image[0] * STD[0] + MEAN[0]
        if len(target["boxes"]) and values.max() - values.min() > 0.2:  # some of both is seen
            box = seen_box(image, float(values.max() + values.min()) / 2)
            torch.testing.assert_close(box, target["boxes"][0], atol=0.04, rtol=0)
            checked += 1
    assert checked > 15


def test_distortion_draws_from_its_own_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    Train([64], 64, crop=False, stretch=True, distort=True)(sample_of(80, 60, [[10, 10, 50, 40]]), random.Random(1))
    assert torch.equal(torch.rand(1), expected)


def test_an_image_without_objects_is_distorted_too():
    train = Train([64], 64, crop=False, stretch=True, distort=True)
    for seed in range(5):
        assert train(sample_of(80, 60, []), random.Random(seed))[1]["boxes"].shape == (0, 4)


def test_values_are_those_of_torchvision():
    from torchvision.transforms import functional

    rng = np.random.RandomState(0)
    picture = Image.fromarray(rng.randint(0, 256, (75, 100, 3)).astype(np.uint8))
    empty = sample_of(100, 75, [])
    image, target = Eval(90, 1333)(Sample(picture, empty.target, 75, 100))
    expected = functional.normalize(functional.to_tensor(functional.resize(picture, [90, 120])), MEAN, STD)
    assert torch.equal(image, expected)
    assert target["boxes"].shape == (0, 4)
    assert target["labels"].shape == (0,)


def test_crowd_is_never_a_target():
    sample = sample_of(100, 80, [[0, 0, 50, 50], [10, 10, 90, 70]], iscrowd=[False, True])
    for transform in (Eval(80, 100), Train(scales=(80,), longest=100, crop=False)):
        assert transform(sample, random.Random(0))[1]["labels"].tolist() == [0]


@pytest.mark.parametrize("crop", [False, True])
def test_boxes_follow_the_pixels(crop):
    transform = Train(scales=(200, 240), longest=400, crop=crop, crop_from=(150, 180), crop_range=(100, 170))
    sample = sample_of(160, 120, [[60, 30, 110, 90]])
    for seed in range(40):
        image, target = transform(sample, random.Random(seed))
        if len(target["boxes"]):
            torch.testing.assert_close(seen_box(image), target["boxes"][0], atol=0.02, rtol=0)
        else:
            assert (image * STD[0] + MEAN[0]).max() < 0.6


def test_training_as_in_the_papers():
    """Half of the images are flipped, half go through a window; sizes stay within the rule."""
    transform, sample = Train(), sample_of(640, 480, [[10, 20, 110, 120]])
    whole = flipped = 0
    for seed in range(60):
        image, target = transform(sample, random.Random(seed))
        short, long = sorted(image.shape[1:])
        assert long <= 1334
        assert short in TRAIN_SCALES or long >= 1332
        assert ((target["boxes"] >= 0) & (target["boxes"] <= 1)).all()
        if len(target["boxes"]) and abs(target["boxes"][0, 2] - 100 / 640) < 1e-3:
            whole += 1
            flipped += bool(target["boxes"][0, 0] > 0.5)
    assert 18 <= whole <= 42
    assert 0.2 < flipped / whole < 0.8


def test_smaller_images_are_trained_as_the_papers_in_proportion():
    """At 800 pixels the papers' own; at a quarter of it every side is a quarter, windows too."""
    assert Train.up_to(TRAIN_SCALES, 1333, crop=True) == Train()
    quarter = Train.up_to(in_proportion(TRAIN_SCALES, 200), 333, crop=True)
    assert quarter.scales == (120, 128, 136, 144, 152, 160, 168, 176, 184, 192, 200)
    assert (quarter.crop_from, quarter.crop_range) == ((100, 125, 150), (96, 150))
    sample = sample_of(640, 480, [[10, 20, 110, 120]])
    sizes = [sorted(quarter(sample, random.Random(seed))[0].shape[1:]) for seed in range(30)]
    assert {short for short, _ in sizes} <= {*quarter.scales, *range(96, 120)}
    assert max(long for _, long in sizes) <= 334
    assert min(short for short, _ in sizes) < 150 < max(short for short, _ in sizes)


def test_a_window_drops_what_it_does_not_show_and_clamps_the_rest():
    from detrbench.data.transforms import _View

    view = _View.of(sample_of(100, 100, [[0, 0, 20, 20], [10, 10, 60, 60], [40, 40, 50, 45]])).crop(20, 20, 40, 30)
    assert view.labels.tolist() == [1, 2]
    assert view.boxes.tolist() == [[0, 0, 40, 30], [20, 20, 30, 25]]
    assert view.image.size == (40, 30)


def test_the_generator_decides_everything():
    transform, sample = Train(scales=(60, 70, 80), longest=120, crop=False), sample_of(100, 80, [[5, 5, 30, 50]])
    first, again = (transform(sample, random.Random(7)) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1]["boxes"], again[1]["boxes"])
    assert len({transform(sample, random.Random(seed))[0].shape for seed in range(20)}) == 3


def test_normalise_leaves_the_picture_alone():
    picture = Image.new("RGB", (4, 3), (255, 0, 128))
    assert normalise(picture).shape == (3, 3, 4)
    assert picture.getpixel((0, 0)) == (255, 0, 128)


def test_seeds_do_not_depend_on_the_process():
    code = "from detrbench.data.seeding import derive_seed; print(derive_seed('augment', 1, 2, 3))"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(result.stdout) == derive_seed("augment", 1, 2, 3) == 8737515276819180715
    assert derive_seed("a", 12, 3) != derive_seed("a", 1, 23)
    assert derive_seed("1") != derive_seed(1)
