"""COCO's 12 figures of detections, with AP by category and bootstrap intervals. Imports no torch.

All figures are pycocotools' own; a test holds them equal, and `by_pycocotools` asks pycocotools itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from detrbench import statistics
from detrbench.data.samples import Dataset
from detrbench.measure import ap_interval, matching
from detrbench.measure.ap_interval import RECALLS, Matches, Replicates
from detrbench.measure.detections import Detections
from detrbench.measure.matching import SIZES, Matched
from detrbench.measure.protocols.accuracy import AccuracyProtocol
from detrbench.results.records import Accuracy, Estimate

# pycocotools' 12 figures, in its order.
STATS = ("AP", "AP50", "AP75", "APS", "APM", "APL", "AR1", "AR10", "AR100", "ARS", "ARM", "ARL")
AT_50, AT_75 = 0, 5  # of the IoU thresholds

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """Detections matched and scored; -1 stands for what does not exist (no such objects), as in pycocotools.

    T IoU thresholds, R recalls, K categories, A sizes (all, small, medium, large).

    Attributes:
        matched: the detections and what they hit.
        precision: (T, R, K, A) at most detections.
        recall: (T, K, A) at most detections.
        recall_of_best: by number of detections (1, 10), (T, K): recall for all sizes.
    """

    matched: Matched
    precision: Floats
    recall: Floats
    recall_of_best: Mapping[int, Floats]

    @property
    def stats(self) -> list[float]:
        """The 12 figures in 0..1, in the order of `STATS`."""
        every, *sized = np.moveaxis(self.precision, -1, 0)
        precisions = [every, every[AT_50], every[AT_75], *sized]
        recalls = [*self.recall_of_best.values(), *np.moveaxis(self.recall, -1, 0)]
        return [_mean(values) for values in [*precisions, *recalls]]


def _mean(values: Floats) -> float:
    """Of what exists."""
    known = values[values > -1]
    return float(known.mean()) if len(known) else -1.0


@dataclass(frozen=True)
class Evaluation:
    """The record of some detections, with what it is made of: which detections hit, and AP of resampled images."""

    record: Accuracy
    matches: Matches
    drawn: Replicates


def evaluate(
    detections: Detections,
    dataset: Dataset,
    protocol: AccuracyProtocol,
    replicates: int = statistics.REPLICATES,
    seed: int = 0,
) -> Evaluation:
    """Score detections as pycocotools does; a figure that does not exist (no such objects) is None.

    Args:
        detections: of the data set's images; may be empty.
        dataset: gives the ground truth.
        protocol: detections of one class that count in an image; named in the record.
        replicates: bootstrap resamples of images for the intervals of AP and AP50.
        seed: of the resamples; equal seeds draw equal images, so differences of detectors can be paired.
    """
    scored = score(detections, dataset, protocol)
    matches = scored.matched.of_all_sizes()
    drawn = ap_interval.bootstrap(matches, replicates, seed)
    stats, num_images = points(scored.stats), len(dataset)
    record = Accuracy(
        protocol=protocol.name,
        protocol_version=protocol.version,
        convention=f"{protocol.convention}; intervals: 1.96 standard deviations of the bootstrap over images",
        num_images=num_images,
        stats=stats,
        per_class=_per_class(scored, dataset),
        ap=_estimate(stats["AP"], drawn.ap, num_images),
        ap50=_estimate(stats["AP50"], drawn.ap50, num_images),
    )
    return Evaluation(record, matches, drawn)


def points(stats: Iterable[float]) -> dict[str, float | None]:
    """Pycocotools' 12 figures by name, 0..100; None for one that does not exist."""
    return {name: _points(value) for name, value in zip(STATS, stats)}


def score(detections: Detections, dataset: Dataset, protocol: AccuracyProtocol) -> Scored:
    """Match and accumulate, as `COCOeval`'s evaluate and accumulate do."""
    matched = matching.match(detections, dataset.coco_ground_truth(), protocol.max_detections)
    thresholds, categories = len(matching.IOU_THRESHOLDS), len(matched.category_ids)
    precision = np.full((thresholds, len(RECALLS), categories, len(SIZES)), -1.0)
    recall = np.full((thresholds, categories, len(SIZES)), -1.0)
    of_best = {count: recall[..., 0].copy() for count in (1, 10)}
    for category in range(categories):
        here = matched.of_category(category)
        for size, num_objects in enumerate(matched.num_objects[:, category]):
            if not num_objects:
                continue
            ignored = matched.ignored[size, :, here]
            true = matched.hit[size, :, here] & ~ignored
            recall[:, category, size] = true.sum(axis=1) / num_objects
            positions = (~ignored).cumsum(axis=1)
            for threshold in range(thresholds):
                found = np.flatnonzero(true[threshold])
                precision[threshold, :, category, size] = _precision(positions[threshold, found], num_objects)
            if size == 0:
                for count, values in of_best.items():
                    values[:, category] = true[:, matched.rank[here] < count].sum(axis=1) / num_objects
    return Scored(matched, precision, recall, of_best)


def _precision(positions: npt.NDArray[np.int64], num_objects: int) -> Floats:
    """(R,) precision at each recall: the best at or beyond it.

    Args:
        positions: (P,) of the true positives among what is not ignored, from 1. Precision can only be best there.
        num_objects: to be found.
    """
    true = np.arange(1, len(positions) + 1)
    best = np.maximum.accumulate((true / (positions + np.spacing(1)))[::-1])[::-1]
    reached = np.searchsorted(true / num_objects, RECALLS, side="left")
    return np.append(best, 0.0)[reached]


def by_pycocotools(detections: Detections, dataset: Dataset, protocol: AccuracyProtocol) -> Any:
    """A `pycocotools.cocoeval.COCOeval` after evaluate, accumulate and summarize, silently: `score` has to equal it."""
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = dataset.coco_ground_truth()
        theirs = COCOeval(_coco(truth), _coco(_results(detections, truth)), "bbox")
        theirs.params.maxDets = [1, 10, protocol.max_detections]
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    return theirs


def _coco(document: dict[str, Any]) -> Any:
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = document
    coco.createIndex()
    return coco


def _results(detections: Detections, truth: dict[str, Any]) -> dict[str, Any]:
    # What COCO.loadRes makes of results; it refuses an empty list.
    annotations = [
        {**detection, "id": number, "area": detection["bbox"][2] * detection["bbox"][3], "iscrowd": 0}
        for number, detection in enumerate(detections.results(), start=1)
    ]
    return {"images": truth["images"], "categories": truth["categories"], "annotations": annotations}


def _per_class(scored: Scored, dataset: Dataset) -> dict[str, float | None]:
    precision_TRK = scored.precision[..., 0]  # all sizes
    names = {category.id: category.name for category in dataset.categories}
    ids = scored.matched.category_ids.tolist()
    return {names[category]: _points(precision_TRK[:, :, index].mean()) for index, category in enumerate(ids)}


def _points(value: float) -> float | None:
    """0..1 -> 0..100; -1 stands for a figure that does not exist."""
    return None if value < 0 else 100 * float(value)


def _estimate(value: float | None, drawn: np.ndarray, num_images: int) -> Estimate:
    """The value with its standard error as a normal distribution, within what an AP can be.

    Not the replicates' own quantiles: a resample holds fewer distinct images, and COCO's AP takes the best precision
    at or beyond each recall, so the replicates lie above the value by as much as the value above the truth.
    """
    if value is None:
        return Estimate(math.nan, "AP points", num_images)
    found = statistics.from_replicates(value, drawn if num_images > 1 else []).estimate("AP points", num_images)
    if found.low is None or found.high is None:
        return found
    return dataclasses.replace(found, low=max(found.low, 0.0), high=min(found.high, 100.0))
