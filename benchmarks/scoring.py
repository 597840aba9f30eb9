"""Scoring of detections: ours against pycocotools, both sides in one process, on made-up images of COCO's proportions.

    python benchmarks/scoring.py                       5000 images x 100 detections
    python benchmarks/scoring.py --images 500 --json

Ours gives the 12 figures, AP by category and the bootstrap interval; pycocotools the 12 figures. Both have to agree on
these to the last bit. Times are of the wall clock and of the processor, which others at work on the machine do not
stretch as much.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from detrbench.data import Category
from detrbench.measure import ap_interval, protocols, scoring
from detrbench.measure.detections import Detections
from detrbench.statistics import REPLICATES

CATEGORIES = 80
CROWDS = 0.012  # share of objects


class MadeUp:
    """Objects as many and as large as in COCO, in classes of very different frequency."""

    num_classes, fingerprint = CATEGORIES, "made up"

    def __init__(self, rng: np.random.Generator, images: int) -> None:
        self.image_ids = list(range(1, images + 1))
        self.categories = [Category(number, f"class {number}") for number in range(1, CATEGORIES + 1)]
        self.image = np.repeat(np.arange(1, images + 1), rng.geometric(1 / 7.3, images))
        self.category = drawn_categories(rng, len(self.image))
        self.boxes = drawn_boxes(rng, len(self.image))
        self.crowd = rng.random(len(self.image)) < CROWDS
        self.share = rng.uniform(0.4, 1, len(self.image))  # of its box that an object fills

    def __len__(self) -> int:
        return len(self.image_ids)

    def to_category_id(self, label: int) -> int:
        return label + 1

    def coco_ground_truth(self) -> dict[str, Any]:
        area = self.boxes[:, 2:].prod(axis=1) * self.share
        columns = (self.image, self.category, self.boxes, area, self.crowd.astype(int))
        names = ("image_id", "category_id", "bbox", "area", "iscrowd")
        rows = enumerate(zip(*(column.tolist() for column in columns)), start=1)
        return {
            "images": [{"id": image, "width": 640, "height": 640} for image in self.image_ids],
            "annotations": [{"id": number, **dict(zip(names, row))} for number, row in rows],
            "categories": [{"id": each.id, "name": each.name} for each in self.categories],
        }


def drawn_categories(rng: np.random.Generator, count: int) -> np.ndarray:
    frequency = 1 / np.arange(1, CATEGORIES + 1)
    return rng.choice(np.arange(1, CATEGORIES + 1), count, p=frequency / frequency.sum())


def drawn_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """(n, 4) x, y, width, height within 640 x 640."""
    sides = np.exp(rng.uniform(np.log(8), np.log(350), (count, 2)))
    return np.concatenate([rng.uniform(0, 640 - sides), sides], axis=1)


def detected(rng: np.random.Generator, data: MadeUp, per_image: int) -> Detections:
    """Two detections near each object, most of its class, and others anywhere until an image has its number."""
    near = np.repeat(np.arange(len(data.image)), 2)
    sides = np.tile(data.boxes[near, 2:], 2)
    boxes = data.boxes[near] + rng.normal(0, 1, sides.shape) * sides * rng.exponential(0.08, (len(near), 1))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], 1)
    own = np.where(rng.random(len(near)) < 0.85, data.category[near], drawn_categories(rng, len(near)))
    missing = np.maximum(per_image - np.bincount(data.image[near], minlength=len(data) + 1)[1:], 0)
    stray = np.repeat(data.image_ids, missing)
    found = Detections(
        np.concatenate([data.image[near], stray]),
        np.concatenate([own, drawn_categories(rng, len(stray))]),
        np.concatenate([boxes, drawn_boxes(rng, len(stray))]),
        np.concatenate([rng.beta(2, 2, len(near)), rng.beta(1, 8, len(stray))]),
    )
    return found.best(per_image)


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """(result, seconds of the wall clock, seconds of the processor)."""
    wall, processor = time.perf_counter(), time.process_time()
    return work(), time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100, help="of each image")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    rng, rule = np.random.default_rng(0), protocols.get("accuracy")
    data = MadeUp(rng, arguments.images)
    found = detected(rng, data, arguments.detections)
    scored, *figures = timed(lambda: scoring.score(found, data, rule))
    _, *interval = timed(lambda: ap_interval.bootstrap(scored.matched.of_all_sizes()))
    evaluation, *ours = timed(lambda: scoring.evaluate(found, data, rule))
    judged, *theirs = timed(lambda: scoring.by_pycocotools(found, data, rule))
    if scored.stats != judged.stats.tolist():
        raise SystemExit(f"not equal: {scored.stats} and {judged.stats.tolist()}")
    result = {
        "images": len(data),
        "detections": len(found),
        "replicates": REPLICATES,
        "ap": evaluation.record.ap.value,
        "interval": [evaluation.record.ap.low, evaluation.record.ap.high],
        "seconds": {"figures": figures, "bootstrap": interval, "ours": ours, "pycocotools": theirs},
        "ratio_figures": theirs[0] / figures[0],
        "ratio_all": theirs[0] / ours[0],
    }
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{len(data)} images, {len(found)} detections, AP {evaluation.record.ap.value:.2f}; the 12 figures are equal")
    for name, (wall, processor) in result["seconds"].items():
        print(f"{name:12} {wall:7.2f} s   processor {processor:7.2f} s")
    print(f"pycocotools takes {result['ratio_figures']:.1f} x the 12 figures, {result['ratio_all']:.1f} x all of ours")


if __name__ == "__main__":
    main()
