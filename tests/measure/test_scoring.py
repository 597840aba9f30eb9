"""AP against pycocotools itself, and intervals against brute force: copied images under new ids, scored anew."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from detrbench import statistics
from detrbench.data import Category
from detrbench.measure import accuracy, ap_interval, protocols, scoring
from detrbench.measure.detections import Detections
from detrbench.results.records import to_json

Detection = dict[str, Any]
COMMON = protocols.get("accuracy", "common")


class Annotated:
    """A data set of ground truth only; label i is category 10 * (i + 1), the last category never occurs."""

    def __init__(self, images: int, annotations: list[dict[str, Any]], categories: int = 4) -> None:
        self.image_ids = list(range(1, images + 1))
        self.categories = [Category(10 * (i + 1), f"class {i}") for i in range(categories)]
        self.annotations = annotations

    num_classes = 6
    fingerprint = "none"

    def __len__(self) -> int:
        return len(self.image_ids)

    def to_category_id(self, label: int) -> int:
        return self.categories[label].id

    def coco_ground_truth(self) -> dict[str, Any]:
        return {
            "images": [{"id": image, "width": 200, "height": 200} for image in self.image_ids],
            "annotations": [{**record, "id": number} for number, record in enumerate(self.annotations, 1)],
            "categories": [{"id": category.id, "name": category.name} for category in self.categories],
        }


def random_case(seed: int, images: int = 8) -> tuple[Annotated, list[Detection]]:
    """Objects, crowds among them, with detections near them and elsewhere; the last category has no object."""
    rng = np.random.default_rng(seed)
    annotations, detections = [], []
    for image in range(1, images + 1):
        for _ in range(rng.integers(0, 5)):
            box = [*rng.uniform(0, 150, 2), *rng.uniform(5, 50, 2)]
            category = int(10 * rng.integers(1, 4))
            crowd = int(rng.random() < 0.2)
            annotations.append(annotation(image, category, box, crowd))
            for _ in range(rng.integers(0, 3)):
                near = [value + rng.normal(0, 3) for value in box]
                detections.append(detection(image, category, near, rng.random()))
        for _ in range(rng.integers(0, 4)):
            stray = [*rng.uniform(0, 150, 2), *rng.uniform(5, 50, 2)]
            detections.append(detection(image, int(10 * rng.integers(1, 5)), stray, rng.random()))
    return Annotated(images, annotations), detections


def annotation(image: int, category: int, box: list[float], crowd: int = 0) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}


def detection(image: int, category: int, box: list[float], score: float) -> Detection:
    return {"image_id": image, "category_id": category, "bbox": box, "score": float(score)}


def copied(dataset: Annotated, detections: list[Detection], counts: np.ndarray) -> tuple[Annotated, list]:
    """Image i as often as counts[i], under new ids."""
    annotations, results, images = [], [], 0
    for image, count in zip(dataset.image_ids, counts):
        for _ in range(count):
            images += 1
            annotations += [{**a, "image_id": images} for a in dataset.annotations if a["image_id"] == image]
            results += [{**d, "image_id": images} for d in detections if d["image_id"] == image]
    return Annotated(images, annotations), results


@pytest.mark.parametrize("seed", range(4))
def test_weighted_ap_equals_scoring_copied_images(seed: int) -> None:
    dataset, detections = random_case(seed)
    matches = scoring.score(Detections.of(detections), dataset, COMMON).matched.of_all_sizes()
    counts = statistics.resample_counts(len(dataset), 12, seed)
    found = ap_interval.weighted_ap(matches, counts)
    for ours, row in zip(found, counts):
        copies, results = copied(dataset, detections, row)
        theirs = scoring.score(Detections.of(results), copies, COMMON).stats
        assert 100 * ours.mean() == pytest.approx(100 * theirs[0], abs=1e-9)
        assert ours[0] == pytest.approx(theirs[1], abs=1e-12)


def test_weights_of_one_give_ap_itself() -> None:
    dataset, detections = random_case(7, images=40)
    scored = scoring.score(Detections.of(detections), dataset, COMMON)
    ones = np.ones((1, len(dataset)), dtype=np.int64)
    found = ap_interval.weighted_ap(scored.matched.of_all_sizes(), ones)[0]
    assert found.mean() == pytest.approx(scored.stats[0], abs=1e-12)
    assert found[0] == pytest.approx(scored.stats[1], abs=1e-12)
    assert found[5] == pytest.approx(scored.stats[2], abs=1e-12)


def test_parts_of_resamples_do_not_change_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, detections = random_case(5)
    matches = scoring.score(Detections.of(detections), dataset, COMMON).matched.of_all_sizes()
    whole = ap_interval.bootstrap(matches, 50)
    monkeypatch.setattr(ap_interval, "RESAMPLES", 7)
    np.testing.assert_array_equal(ap_interval.bootstrap(matches, 50).ap, whole.ap)


def test_record_of_a_random_case() -> None:
    dataset, detections = random_case(1, images=30)
    record = scoring.evaluate(Detections.of(detections), dataset, COMMON).record
    assert list(record.stats) == list(scoring.STATS)
    assert record.num_images == record.ap.n == 30
    assert record.per_class["class 3"] is None  # has no object
    assert record.ap.low is not None
    assert record.ap.high is not None
    assert record.ap.low < record.ap.value < record.ap.high
    assert record.ap.value == record.stats["AP"]
    present = [value for value in record.per_class.values() if value is not None]
    assert np.mean(present) == pytest.approx(record.ap.value)


def test_perfect_detections() -> None:
    dataset, _ = random_case(2)
    detections = [
        detection(a["image_id"], a["category_id"], a["bbox"], 0.9) for a in dataset.annotations if not a["iscrowd"]
    ]
    record = scoring.evaluate(Detections.of(detections), dataset, COMMON).record
    assert record.stats["AP"] == pytest.approx(100)
    assert record.ap.low == pytest.approx(100)


def test_nothing_detected_is_zero() -> None:
    dataset, _ = random_case(3)
    record = scoring.evaluate(Detections.of([]), dataset, COMMON).record
    assert record.stats["AP"] == 0
    assert (record.ap.low, record.ap.high) == (0, 0)


def test_nothing_annotated_is_none() -> None:
    dataset = Annotated(3, [])
    record = scoring.evaluate(Detections.of([detection(1, 10, [0, 0, 5, 5], 0.5)]), dataset, COMMON).record
    assert set(record.stats.values()) == {None}
    assert set(record.per_class.values()) == {None}
    assert math.isnan(record.ap.value)
    assert to_json(record)["ap"]["value"] is None
    assert to_json(record)["ap"]["low"] is None


def test_one_image_has_no_interval() -> None:
    dataset = Annotated(1, [annotation(1, 10, [0, 0, 50, 50])])
    record = scoring.evaluate(Detections.of([detection(1, 10, [0, 0, 50, 50], 0.5)]), dataset, COMMON).record
    assert record.ap.value == pytest.approx(100)
    assert record.ap.low is None


def test_paired_difference_is_narrower_than_either_interval() -> None:
    dataset, detections = random_case(4, images=60)
    worse = [d for i, d in enumerate(detections) if i % 10]
    first, second = (
        scoring.score(Detections.of(d), dataset, COMMON).matched.of_all_sizes() for d in (detections, worse)
    )
    difference = ap_interval.paired_difference(first, second)
    alone = scoring.evaluate(Detections.of(detections), dataset, COMMON).record.ap
    assert alone.low is not None
    assert alone.high is not None
    low, high = difference.interval()
    assert low <= difference.value <= high
    assert high - low < alone.high - alone.low
    assert ap_interval.paired_difference(first, first).interval() == (0, 0)


def test_labels_without_category_are_left_out() -> None:
    assert accuracy.category_ids(Annotated(1, [])) == {0: 10, 1: 20, 2: 30, 3: 40}


def test_pycocotools_stays_silent(capsys: pytest.CaptureFixture[str]) -> None:
    dataset, detections = random_case(6)
    scoring.evaluate(Detections.of(detections), dataset, COMMON, replicates=10)
    assert capsys.readouterr().out == ""
