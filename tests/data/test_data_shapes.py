"""The generated data: determinism, boxes that fit the pixels, and pycocotools' view of it."""

import contextlib
import hashlib
import io
import subprocess
import sys

import numpy as np
import pytest
from coco_files import write_coco
from PIL import ImageDraw

from detrbench.data import DataSpec, open_dataset
from detrbench.data.drawing import OUTLINES, overlap, shape_mask
from detrbench.data.shapes import GENERATOR_VERSION, LEAST_VISIBLE

SPEC = DataSpec("shapes", num_train=12, num_val=40, image_size=96)


def ap(ground_truth, detections):
    """The 12 figures of pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = ground_truth
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def detections_of(dataset):
    """The targets that a detector sees, as if it had found them all."""
    found = []
    for index, image_id in enumerate(dataset.image_ids):
        target = dataset[index].target
        for label, (x1, y1, x2, y2) in zip(target.labels.tolist(), target.boxes.tolist(), strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            category = dataset.to_category_id(label)
            found.append({"image_id": image_id, "category_id": category, "bbox": box, "score": 1.0})
    return found


@pytest.mark.parametrize("labels", ["contiguous", "category_id"])
def test_ground_truth_as_detections_is_perfect(labels):
    dataset = open_dataset(DataSpec("shapes", num_val=40, image_size=96, labels=labels), "val")
    stats = ap(dataset.coco_ground_truth(), detections_of(dataset))
    assert stats[0] == stats[1] == stats[8] == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["bccd", "tiny_coco_free"])
def test_ground_truth_of_real_images_as_detections_is_perfect(real_data, name):
    dataset = open_dataset(DataSpec("coco", path=real_data / name), "val")
    ground_truth = dataset.coco_ground_truth()
    found = [
        {key: a[key] for key in ("image_id", "category_id", "bbox")} | {"score": 1.0}
        for a in ground_truth["annotations"]
        if not a["iscrowd"]
    ]
    assert ap(ground_truth, found)[0] == pytest.approx(1.0)


def test_the_same_seed_gives_the_same_pixels_in_another_process():
    code = (
        "import hashlib, numpy as np; from detrbench.data import DataSpec, open_dataset\n"
        "d = open_dataset(DataSpec('shapes', num_train=12, num_val=40, image_size=96), 'val')\n"
        "print(hashlib.sha256(np.asarray(d[5].image).tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    dataset = open_dataset(SPEC, "val")
    dataset[0]  # an image does not depend on those before it
    assert hashlib.sha256(np.asarray(dataset[5].image).tobytes()).hexdigest() == other


def test_splits_seeds_and_indices_differ():
    images = [
        np.asarray(open_dataset(DataSpec("shapes", num_train=2, num_val=2, image_size=64, seed=seed), split)[i].image)
        for seed in (0, 1)
        for split in ("train", "val")
        for i in (0, 1)
    ]
    assert len({image.tobytes() for image in images}) == len(images)


def test_limit_and_length_do_not_change_the_images():
    whole = open_dataset(SPEC, "val")
    limited = open_dataset(DataSpec("shapes", num_train=1, num_val=40, image_size=96, limit=3), "val")
    assert (len(whole), len(limited)) == (40, 3)
    assert np.array_equal(np.asarray(whole[2].image), np.asarray(limited[2].image))
    assert len(limited.coco_ground_truth()["images"]) == 3


def test_the_fingerprint_tells_specs_apart():
    def fingerprint(split="val", **changes):
        return open_dataset(DataSpec("shapes", **{"num_val": 40, "image_size": 96} | changes), split).fingerprint

    first = fingerprint()
    assert fingerprint() == first
    assert fingerprint(num_train=7) == first  # the other split
    others = [fingerprint(seed=1), fingerprint(clutter=0.1), fingerprint(limit=3), fingerprint("train")]
    assert len({first, *others}) == 5
    assert fingerprint(num_val=3) == fingerprint(limit=3)


@pytest.mark.parametrize("clutter", [0.0, 1.0])
@pytest.mark.parametrize("image_size", [33, 96, 320])
def test_boxes_lie_in_their_images(image_size, clutter):
    spec = DataSpec("shapes", num_val=15, image_size=image_size, clutter=clutter, max_objects=8)
    dataset = open_dataset(spec, "val")
    sizes = set()
    for i in range(len(dataset)):
        sample = dataset[i]
        assert sample.image.size == (sample.width, sample.height)
        assert max(sample.image.size) == image_size
        assert min(sample.image.size) >= 0.74 * image_size
        boxes, areas = sample.target.boxes, sample.target.area
        assert len(boxes) <= 8
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= [sample.width, sample.height]).all()
        widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        assert (widths > 0).all()
        assert (heights > 0).all()
        assert (areas <= widths * heights).all()
        assert sample.target.labels.dtype == np.int64
        sizes.update(np.maximum(widths, heights).tolist())
    assert max(sizes) <= 0.6 * image_size + 1


def test_all_classes_and_many_sizes_appear():
    dataset = open_dataset(DataSpec("shapes", num_val=200), "val")
    targets = [dataset[i].target for i in range(200)]
    counts = np.bincount(np.concatenate([target.labels for target in targets]), minlength=12)
    assert len(counts) == dataset.num_classes == len(dataset.categories) == 12
    assert counts.min() > 0.4 * counts.mean()
    assert all(1 <= len(target.labels) <= 5 for target in targets)
    sides = np.sqrt(np.concatenate([target.area for target in targets]))
    assert np.percentile(sides, 90) > 3 * np.percentile(sides, 10)


@pytest.mark.parametrize("name", sorted(OUTLINES))
@pytest.mark.parametrize("size", [4, 12, 77])
def test_masks_are_tight(name, size):
    mask = shape_mask(name, size, 1.2, 15)
    assert max(mask.shape) == size
    assert mask.dtype == np.float32
    assert 0 <= mask.min() <= mask.max() <= 1
    inner = mask[1:-1, 1:-1]
    if size > 4:
        assert all(edge.max() > 0 for edge in (inner[0], inner[-1], inner[:, 0], inner[:, -1]))
    assert 0.2 < mask.mean() <= 1


def test_overlap_clips_on_all_sides():
    for left, top, rows, columns in [(-2, -1, 3, 2), (8, 7, 3, 2), (3, 3, 4, 4), (50, 50, 0, 0), (-9, -9, 0, 0)]:
        there, here = overlap((10, 10), (4, 4), left, top)
        canvas, patch = np.zeros((10, 10))[there], np.zeros((4, 4))[here]
        assert canvas.shape == patch.shape
        assert canvas.size == rows * columns


def test_hidden_objects_stay_recognisable():
    """The least visible share holds for what covers what; a plain rendering shows it by its areas."""
    dataset = open_dataset(DataSpec("shapes", num_val=60, max_objects=8, clutter=0.0, min_size=30), "val")
    shares = []
    for i in range(60):
        target = dataset[i].target
        extents = (target.boxes[:, 2:] - target.boxes[:, :2]).prod(axis=1)
        shares.extend((target.area / extents).tolist())
    assert min(shares) > 0.5 * LEAST_VISIBLE * 0.3  # the thinnest shape fills 0.3 of its box


def test_written_as_coco_files_it_reads_back_the_same(tmp_path):
    dataset = open_dataset(SPEC, "train")
    write_coco(dataset, tmp_path, "train")
    read = open_dataset(DataSpec("coco", path=tmp_path), "train")
    assert [c.name for c in read.categories] == [c.name for c in dataset.categories]
    written = dataset.coco_ground_truth()["annotations"]
    assert all(record.pop("segmentation") == [] for record in written)  # which is not read
    assert read.coco_ground_truth()["annotations"] == written
    for ours, theirs in zip((dataset[i] for i in range(12)), (read[i] for i in range(12)), strict=True):
        assert np.array_equal(np.asarray(ours.image), np.asarray(theirs.image))
        assert np.array_equal(ours.target.boxes, theirs.target.boxes)
        assert np.array_equal(ours.target.labels, theirs.target.labels)


def test_the_pixels_belong_to_the_version():
    """Fails when drawing changes: then raise GENERATOR_VERSION, since results of the old images no longer compare."""
    dataset = open_dataset(DataSpec("shapes", num_val=3, image_size=64), "val")
    boxes = [dataset[i].target.boxes.astype(int).tolist() for i in range(3)]
    assert GENERATOR_VERSION == 1
    assert boxes == [
        [[0, 0, 24, 21], [33, 1, 49, 19], [40, 36, 52, 56], [45, 0, 64, 23]],
        [[11, 23, 40, 43]],
        [[33, 22, 54, 44], [27, 15, 49, 43], [33, 23, 49, 40], [9, 30, 29, 47]],
    ]


def test_drawing_on_a_sample_does_not_reach_the_kept_image():
    dataset = open_dataset(SPEC, "val")
    before = np.asarray(dataset[0].image)
    ImageDraw.Draw(dataset[0].image).rectangle((0, 0, 90, 90), fill=(1, 2, 3))
    assert np.array_equal(np.asarray(dataset[0].image), before)
