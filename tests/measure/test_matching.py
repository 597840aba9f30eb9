"""Our figures and matches against pycocotools' own, over random sets that hold all of its special cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_scoring import COMMON, Annotated, Detection, annotation, detection

from detrbench.measure import ap_interval, matching, scoring
from detrbench.measure.detections import Detections

SIDES = (16, 31, 32, 33, 95, 96, 97)  # at both borders between sizes, and beside them


def random_set(seed: int) -> tuple[Annotated, list[Detection]]:
    """Whole-numbered boxes, so that areas, IoUs and scores meet their borders; with empty images and classes."""
    rng = np.random.default_rng(seed)
    images = int(rng.integers(1, 7))
    annotations: list[dict[str, Any]] = []
    detections: list[Detection] = []
    for image in range(1, images + 1):
        for _ in range(rng.choice([0, 1, 3, 8])):
            box = [*rng.integers(0, 60, 2).tolist(), *rng.choice(SIDES, 2).tolist()]
            category, crowd = int(10 * rng.integers(1, 4)), int(rng.random() < 0.2)
            annotations.append(annotation(image, category, box, crowd))
            if rng.random() < 0.3:
                annotations[-1]["area"] = float(rng.choice([1024, 9216, 500]))
            for _ in range(rng.integers(0, 4)):
                moved = [int(value + rng.integers(-4, 5)) for value in box]
                detections.append(detection(image, int(rng.choice([category, 10, 40])), moved, round(rng.random(), 1)))
            detections.append(detection(image, category, box, round(rng.random(), 1)))  # IoU 1
        for _ in range(rng.choice([0, 4])):
            stray = [*rng.integers(0, 60, 2).tolist(), *rng.choice(SIDES, 2).tolist()]
            detections.append(detection(image, int(10 * rng.integers(1, 5)), stray, round(rng.random(), 1)))
        if seed % 5 == 0 and annotations:  # more than count
            many = [annotations[int(rng.integers(len(annotations)))] for _ in range(130)]
            detections += [detection(image, 10, each["bbox"], round(rng.random(), 2)) for each in many]
    return Annotated(images, annotations), detections


def theirs_of(judged: Any, category: int, size: int) -> dict[str, np.ndarray]:
    """What pycocotools matched of one category and size, its detections in the order in which it ranks them."""
    images, sizes = len(judged.params.imgIds), len(judged.params.areaRng)
    first = (category * sizes + size) * images
    found = [(i, e) for i, e in enumerate(judged.evalImgs[first : first + images]) if e is not None]
    scores = np.concatenate([[], *(entry["dtScores"] for _, entry in found)])
    order = np.argsort(-scores, kind="mergesort")

    def joined(name: str) -> np.ndarray:
        return np.concatenate([np.zeros((10, 0)), *(entry[name] for _, entry in found)], axis=1)[:, order] > 0

    return {
        "image": np.concatenate([[], *(np.full(len(e["dtScores"]), i) for i, e in found)])[order],
        "hit": joined("dtMatches"),
        "ignored": joined("dtIgnore"),
        "objects": np.array(sum(np.count_nonzero(np.asarray(e["gtIgnore"]) == 0) for _, e in found)),
    }


def assert_equal_to_pycocotools(dataset: Annotated, detections: list[Detection]) -> None:
    found = Detections.of(detections)
    scored, judged = scoring.score(found, dataset, COMMON), scoring.by_pycocotools(found, dataset, COMMON)
    assert scored.stats == judged.stats.tolist()  # to the last bit
    np.testing.assert_array_equal(scored.precision, judged.eval["precision"][..., -1])
    np.testing.assert_array_equal(scored.recall, judged.eval["recall"][..., -1])
    for category in range(len(judged.params.catIds)):
        here = scored.matched.of_category(category)
        for size in range(len(matching.SIZES)):
            theirs = theirs_of(judged, category, size)
            np.testing.assert_array_equal(scored.matched.image[here], theirs["image"])
            np.testing.assert_array_equal(scored.matched.hit[size, :, here], theirs["hit"])
            np.testing.assert_array_equal(scored.matched.ignored[size, :, here], theirs["ignored"])
            assert scored.matched.num_objects[size, category] == theirs["objects"]


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_figures_and_matches_equal_pycocotools(first: int) -> None:
    for seed in range(first, first + 10):
        assert_equal_to_pycocotools(*random_set(seed))


@pytest.mark.full
@pytest.mark.parametrize("first", range(40, 400, 40))
def test_figures_and_matches_equal_pycocotools_over_many_sets(first: int) -> None:
    for seed in range(first, first + 40):
        assert_equal_to_pycocotools(*random_set(seed))


def test_the_random_sets_hold_every_special_case() -> None:
    """What the equality above rests on."""
    seen = dict.fromkeys(("crowd", "equal scores", "empty image", "border", "too many", "ignored", "half"), 0)
    for seed in range(40):
        dataset, detections = random_set(seed)
        truth, scores = dataset.annotations, [each["score"] for each in detections]
        seen["crowd"] += any(each["iscrowd"] for each in truth)
        seen["equal scores"] += len(set(scores)) < len(scores)
        seen["empty image"] += {each["image_id"] for each in truth} != set(dataset.image_ids)
        seen["border"] += any(each["area"] in (1024, 9216) for each in truth)
        of_one_class = {(e["image_id"], e["category_id"]): 0 for e in detections}
        for each in detections:
            of_one_class[each["image_id"], each["category_id"]] += 1
        seen["too many"] += max(of_one_class.values(), default=0) > COMMON.max_detections
        matched = scoring.score(Detections.of(detections), dataset, COMMON).matched
        seen["ignored"] += bool((matched.hit & matched.ignored).any())
        seen["half"] += bool((matched.hit[0, 0] & ~matched.hit[0, 1]).any())
    assert min(seen.values()) >= 5, seen


def test_of_objects_of_equal_iou_the_last_is_chosen() -> None:
    """As pycocotools does: the first detection takes the second object, which leaves the first one to the next."""
    dataset = Annotated(1, [annotation(1, 10, [0, 0, 40, 40]), annotation(1, 10, [8, 0, 40, 40])])
    detections = [detection(1, 10, [4, 0, 40, 40], 0.9), detection(1, 10, [0, 0, 40, 40], 0.8)]
    assert_equal_to_pycocotools(dataset, detections)
    at_75 = scoring.score(Detections.of(detections), dataset, COMMON).matched.hit[0, 5]
    assert at_75.tolist() == [True, True]


def test_a_detection_of_a_foreign_image_is_no_detection_of_these() -> None:
    with pytest.raises(ValueError, match="not in the data set"):
        scoring.score(Detections.of([detection(9, 10, [0, 0, 5, 5], 0.5)]), Annotated(1, []), COMMON)


def test_few_pairs_at_a_time_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, detections = random_set(5)
    whole = scoring.score(Detections.of(detections), dataset, COMMON).matched
    monkeypatch.setattr(matching, "MAX_PAIRS", 3)
    parts = scoring.score(Detections.of(detections), dataset, COMMON).matched
    np.testing.assert_array_equal(parts.hit, whole.hit)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8, 9, 17, 100])
def test_running_sums_by_blocks(rows: int) -> None:
    values = np.random.default_rng(rows).random((rows, 3)).round(2)
    np.testing.assert_array_equal(ap_interval._running(np.maximum, values.copy()), np.maximum.accumulate(values))
    sums = ap_interval._running(np.add, (100 * values).round())
    np.testing.assert_array_equal(sums, np.cumsum((100 * values).round(), axis=0))
