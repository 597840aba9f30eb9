"""Bootstrap intervals of AP over images, without scoring anything twice.

COCO's matching of detections to objects is done within one image, so a resample of images needs no new matching: AP is
recomputed from the same matches with each image weighted by how often it was drawn. An image drawn twice counts twice,
exactly as if it were in the data set twice under two ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from detrbench import statistics
from detrbench.statistics import Evidence

RECALLS = np.linspace(0, 1, 101)  # COCO's recall thresholds
MAX_CELLS = 2_000_000  # replicates x detections worked on at a time

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClassMatches:
    """One category over all N images: D detections, best first, at T IoU thresholds.

    Attributes:
        image: (D,) index of the detection's image.
        hit: (T, D) matched to an object.
        ignored: (T, D) matched to a crowd, so neither right nor wrong.
        objects: (N,) objects to be found in each image, crowd left out.
    """

    image: Ints
    hit: Bools
    ignored: Bools
    objects: Ints


@dataclass(frozen=True)
class Matches:
    """The matches of a data set, by category."""

    num_images: int
    classes: list[ClassMatches]


def read_matches(evaluated: Any) -> Matches:
    """The matches for boxes of all sizes in a `COCOeval` after its `evaluate`."""
    num_images, num_areas = len(evaluated.params.imgIds), len(evaluated.params.areaRng)
    classes = []
    for category in range(len(evaluated.params.catIds)):
        first = category * num_areas * num_images  # entries: category, area ("all" first), image
        classes.append(_class_matches(evaluated.evalImgs[first : first + num_images], len(evaluated.params.iouThrs)))
    return Matches(num_images, classes)


def _class_matches(images: list[dict[str, Any] | None], thresholds: int) -> ClassMatches:
    found = [(index, entry) for index, entry in enumerate(images) if entry is not None]
    objects = np.zeros(len(images), dtype=np.int64)
    for index, entry in found:
        objects[index] = np.count_nonzero(np.asarray(entry["gtIgnore"]) == 0)
    if not found:
        nothing = np.zeros((thresholds, 0), dtype=bool)
        return ClassMatches(np.zeros(0, dtype=np.int64), nothing, nothing, objects)
    order = np.argsort(-np.concatenate([entry["dtScores"] for _, entry in found]), kind="mergesort")
    return ClassMatches(
        image=np.concatenate([np.full(len(entry["dtScores"]), index) for index, entry in found])[order],
        hit=np.concatenate([entry["dtMatches"] for _, entry in found], axis=1)[:, order] > 0,
        ignored=np.concatenate([entry["dtIgnore"] for _, entry in found], axis=1)[:, order].astype(bool),
        objects=objects,
    )


def weighted_ap(matches: Matches, weights: npt.NDArray[np.integer]) -> Floats:
    """AP at each IoU threshold, mean over the categories that have objects.

    Equals pycocotools' on a data set where image i stands `weights[r, i]` times, unless two detections of one category
    have equal scores (their order among the copies is then a matter of taste).

    Args:
        matches: of N images.
        weights: (R, N) integers.

    Returns:
        (R, T) in 0..1; NaN where a resample has no object at all.
    """
    thresholds = len(matches.classes[0].hit) if matches.classes else 1
    total, present = np.zeros((len(weights), thresholds)), np.zeros((len(weights), 1))
    for one in matches.classes:
        ap = _class_ap(one, weights)
        total = total + np.nan_to_num(ap)
        present += ~np.isnan(ap[:, :1])
    with np.errstate(invalid="ignore"):
        return np.asarray(total / present)


def _class_ap(one: ClassMatches, weights: npt.NDArray[np.integer]) -> Floats:
    """(R, T) AP of one category; NaN where it has no object in a resample."""
    step = max(1, MAX_CELLS // max(1, len(one.image)))
    return np.concatenate([_class_ap_block(one, weights[i : i + step]) for i in range(0, len(weights), step)])


def _class_ap_block(one: ClassMatches, weights: npt.NDArray[np.integer]) -> Floats:
    objects = (weights @ one.objects).astype(float)  # (R,)
    taken = weights[:, one.image].astype(float)  # (R, D): copies of each detection
    ranks = taken.cumsum(axis=1)  # detections up to and including this one
    ap = np.stack([_average_precision(*at, taken, ranks, objects) for at in zip(one.hit, one.ignored)], axis=1)
    return np.where(objects[:, None] > 0, ap, np.nan)


def _average_precision(hit: Bools, ignored: Bools, taken: Floats, ranks: Floats, objects: Floats) -> Floats:
    """(R,) COCO's 101-point AP at one IoU threshold.

    Precision can only matter where recall rises, so only the true positives are looked at: each recall threshold takes
    the best precision at or after the first true positive that reaches it.
    """
    found = np.flatnonzero(hit & ~ignored)  # (P,)
    if not len(found):
        return np.zeros(len(taken))
    true = taken[:, found].cumsum(axis=1)  # (R, P)
    precision = true / (ranks[:, found] - _ignored_before(found, np.flatnonzero(ignored), taken) + np.spacing(1))
    best_after = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = np.searchsorted(RECALLS, true / np.maximum(objects, 1)[:, None], side="right")
    return (best_after * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(RECALLS)


def _ignored_before(found: Ints, ignored: Ints, taken: Floats) -> Floats:
    """(R, P) how many ignored detections rank before each of `found`."""
    counts = np.zeros((len(taken), len(ignored) + 1))
    np.cumsum(taken[:, ignored], axis=1, out=counts[:, 1:])
    return counts[:, np.searchsorted(ignored, found)]


@dataclass(frozen=True)
class Replicates:
    """Bootstrap replicates of AP (mean over IoU) and AP50, in points."""

    ap: Floats
    ap50: Floats


def bootstrap(matches: Matches, replicates: int = statistics.REPLICATES, seed: int = 0) -> Replicates:
    """Resample images. The same number of images, replicates and seed draws the same images: paired."""
    by_threshold = 100 * weighted_ap(matches, statistics.resample_counts(matches.num_images, replicates, seed))
    return Replicates(by_threshold.mean(axis=1), by_threshold[:, 0])


def paired_difference(
    first: Matches,
    second: Matches,
    of: Literal["ap", "ap50"] = "ap",
    seed: int = 0,
    drawn: Sequence[Replicates] | None = None,
) -> Evidence:
    """AP of `first` minus AP of `second`, in points, from the same images drawn together.

    Args:
        first: the one whose gain is positive.
        second: what it is compared with.
        of: the mean over the IoU thresholds, or the first threshold alone (0.50).
        seed: of the resamples.
        drawn: the replicates of both, where they have been drawn already with that seed.

    Raises:
        ValueError: the two were not scored on equally many images.
    """
    if first.num_images != second.num_images:
        raise ValueError(f"not the same images: {first.num_images} and {second.num_images}")
    everything = np.ones((1, first.num_images), dtype=np.int64)
    by_threshold = 100 * (weighted_ap(first, everything) - weighted_ap(second, everything))[0]
    value = float(by_threshold.mean() if of == "ap" else by_threshold[0])
    one, other = drawn or [bootstrap(each, seed=seed) for each in (first, second)]
    return statistics.from_replicates(value, getattr(one, of) - getattr(other, of))
