"""Bootstrap intervals of AP over images, without scoring anything twice.

COCO's matching of detections to objects is done within one image, so a resample of images needs no new matching: AP is
recomputed from the same matches with each image weighted by how often it was drawn. An image drawn twice counts twice,
exactly as if it were in the data set twice under two ids.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse

from detrbench import statistics
from detrbench.statistics import Evidence

RECALLS = np.linspace(0, 1, 101)  # COCO's recall thresholds
RESAMPLES = 1000  # worked on at a time: fewer make long rows, of which each costs a call, too short
COPIES = 1 << 26  # of images in these resamples, at most: half a gigabyte

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
    parts = [np.zeros((0, thresholds)), *(_weighted(matches.classes, part, thresholds) for part in _parts(weights))]
    return np.concatenate(parts)


def _parts(weights: npt.NDArray[np.integer]) -> Iterator[npt.NDArray[np.integer]]:
    size = max(1, min(RESAMPLES, COPIES // max(1, weights.shape[1])))
    for start in range(0, len(weights), size):
        yield weights[start : start + size]


def _weighted(classes: Sequence[ClassMatches], weights: npt.NDArray[np.integer], thresholds: int) -> Floats:
    """(R, T) as `weighted_ap`, of resamples that are in hand together."""
    copies = np.ascontiguousarray(weights.T, dtype=float)
    objects = np.array([one.objects for one in classes], dtype=float).reshape(-1, len(copies)) @ copies
    total, present = np.zeros((len(weights), thresholds)), np.zeros((len(weights), 1))
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy and scipy release Python's lock
        for ap in pool.map(_class_ap, classes, itertools.repeat(copies), objects):
            total += np.nan_to_num(ap)
            present += ~np.isnan(ap[:, :1])
    with np.errstate(invalid="ignore"):
        return np.asarray(total / present)


def _class_ap(one: ClassMatches, copies: Floats, objects: Floats) -> Floats:
    """(R, T) AP of one category; NaN where it has no object in a resample.

    Args:
        one: the category.
        copies: (N, R) how often each resample holds each image.
        objects: (R,) to be found in each.
    """
    curves = [_Curve.of(one, hit, ignored) for hit, ignored in zip(one.hit, one.ignored)]
    # One sum for all thresholds: most of the work is in the detections that are wrong at all of them.
    ends = np.unique(np.concatenate([curve.ends for curve in curves]))
    everything = _until(ends, np.arange(len(one.image)), one.image, len(one.objects))
    ranks = _running(np.add, everything @ copies)
    found = [curve.average_precision(copies, ranks[np.searchsorted(ends, curve.ends)], objects) for curve in curves]
    return np.where(objects[:, None] > 0, np.stack(found, axis=1), np.nan)


@dataclass(frozen=True)
class _Curve:
    """Precision and recall of one category at one IoU threshold, at the Q places where it matters.

    Precision rises along detections that are right without a wrong one between them, so the best at or beyond each of
    them is found at the end of their run, whatever images are drawn.

    Attributes:
        ends: (Q,) the last detection of each run.
        right: (Q, N) right detections of each run, by image.
        ignored: (Q, N) ignored detections since the run before; None without any.
    """

    ends: Ints
    right: sparse.csr_array
    ignored: sparse.csr_array | None

    @classmethod
    def of(cls, one: ClassMatches, hit: Bools, ignored: Bools) -> _Curve:
        right = np.flatnonzero(hit & ~ignored)
        places = (~ignored).cumsum()[right]
        ends = right[np.diff(places, append=np.inf) > 1] if len(right) else right
        passed, images = np.flatnonzero(ignored), len(one.objects)
        skipped = _until(ends, passed, one.image, images) if len(passed) else None
        return cls(ends, _until(ends, right, one.image, images), skipped)

    def average_precision(self, copies: Floats, ranks: Floats, objects: Floats) -> Floats:
        """(R,) COCO's 101-point AP: each recall takes the best precision at or beyond where it is reached.

        Args:
            copies: (N, R) of each image in each resample.
            ranks: (Q, R) detections up to and including the end of each run; overwritten.
            objects: (R,) to be found.
        """
        if not len(self.ends):
            return np.zeros(len(objects))
        true = _running(np.add, self.right @ copies)
        if self.ignored is not None:
            ranks -= _running(np.add, self.ignored @ copies)
        best = np.divide(true, np.maximum(ranks, 1, out=ranks), out=ranks)
        _running(np.maximum, best[::-1])
        recall = np.divide(true, np.maximum(objects, 1), out=true)
        reached = recall * 100
        reached += 1e-9
        np.floor(reached, out=reached)  # the recall of RECALLS next below, or the one that is met up to rounding
        spare = reached * RECALLS[1]
        reached += spare <= recall  # RECALLS[i] is i * RECALLS[1] to the last bit
        first = spare  # how many recalls each run is the first to reach
        first[0] = reached[0]
        np.subtract(reached[1:], reached[:-1], out=first[1:])
        return np.asarray(np.einsum("qr,qr->r", best, first)) / len(RECALLS)


def _until(ends: Ints, which: Ints, image: Ints, num_images: int) -> sparse.csr_array:
    """(Q, N) how many of the detections `which` each image has between one end and the next; both ascend."""
    rows = np.searchsorted(which, ends, side="right")
    columns = image[which[: rows[-1]]] if len(rows) else which[:0]
    return sparse.csr_array((np.ones(len(columns)), columns, np.append(0, rows)), shape=(len(ends), num_images))


def _running(combine: np.ufunc, values: Floats) -> Floats:
    """(Q, R) `combine.accumulate` over the rows, in place: numpy's own goes column by column."""
    for above, row in itertools.pairwise(values):
        combine(above, row, out=row)
    return values


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
