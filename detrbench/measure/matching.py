"""COCO's matching of detections to objects, for all images, IoU thresholds and object sizes at once. Imports no torch.

The rule is pycocotools' (`COCOeval.evaluateImg`), to the last bit: within an image and a category, detections choose
best score first, each the object of highest IoU that is left; crowds and objects of other sizes only where no other
will do, and what they match is ignored. pycocotools asks each image, category and size in turn, in Python; here all of
them take their first choice together, then their second, ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from detrbench.measure.ap_interval import ClassMatches, Matches
from detrbench.measure.detections import Detections, ranks

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
SIZES = ("all", "small", "medium", "large")
AREAS = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])  # pixels^2, both ends included
MAX_PAIRS = 2_000_000  # pairs of a detection and an object looked at at a time

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Matched:
    """D detections of K categories in N images, matched at A ranges of area and T IoU thresholds.

    Detections are in pycocotools' order: by category, there by score, best first, and equal ones by image and rank.

    Attributes:
        image_ids: (N,) ascending.
        category_ids: (K,) ascending.
        ends: (K,) where each category's detections end.
        image: (D,) index of the image.
        rank: (D,) place among the image's detections of the category.
        hit: (A, T, D) matched to an object, be it an ignored one.
        ignored: (A, T, D) neither right nor wrong.
        objects: (K, N) objects to be found, of all sizes.
        num_objects: (A, K) the same by size.
    """

    image_ids: Ints
    category_ids: Ints
    ends: Ints
    image: Ints
    rank: Ints
    hit: Bools
    ignored: Bools
    objects: Ints
    num_objects: Ints

    def of_category(self, index: int) -> slice:
        """Where a category's detections are."""
        return slice(int(self.ends[index - 1]) if index else 0, int(self.ends[index]))

    def of_all_sizes(self) -> Matches:
        """What AP of resampled images needs."""
        classes = []
        for index, objects in enumerate(self.objects):
            here = self.of_category(index)
            classes.append(ClassMatches(self.image[here], self.hit[0, :, here], self.ignored[0, :, here], objects))
        return Matches(len(self.image_ids), classes)


@dataclass(frozen=True)
class _Objects:
    """G objects by group (category x image), in a group in the order of the file."""

    group: Ints  # (G,)
    boxes: Floats  # (G, 4)
    crowd: Bools  # (G,)
    ignored: Bools  # (G, A)


def match(detections: Detections, truth: Mapping[str, Any], max_detections: int) -> Matched:
    """Matches all detections.

    Args:
        detections: of images of `truth`; those of other categories are left out, as pycocotools does.
        truth: as `Dataset.coco_ground_truth` gives it.
        max_detections: of one category in one image, the best.

    Raises:
        ValueError: a detection of an image that is not there.
    """
    image_ids = np.unique(np.array([record["id"] for record in truth["images"]], dtype=np.int64))
    category_ids = np.unique(np.array([record["id"] for record in truth["categories"]], dtype=np.int64))
    objects = _objects(truth["annotations"], image_ids, category_ids)
    if not np.isin(detections.image_ids, image_ids).all():
        raise ValueError("detections of images that are not in the data set")
    detections = detections.chosen(np.isin(detections.category_ids, category_ids))
    group = _group(detections.category_ids, detections.image_ids, category_ids, image_ids)
    order = np.lexsort((-detections.scores, group))  # stable, as pycocotools' merge sort
    rank = ranks(group[order])
    order, rank = order[rank < max_detections], rank[rank < max_detections]
    kept, group = detections.chosen(order), group[order]
    hit, ignored = _choose(kept.boxes, group, objects)
    # pycocotools ranks a category's detections over all images by a stable sort of their scores.
    category = group // len(image_ids)
    order = np.lexsort((-kept.scores, category))
    shape = len(category_ids), len(image_ids)
    return Matched(
        image_ids,
        category_ids,
        np.bincount(category, minlength=len(category_ids)).cumsum(),
        (group % len(image_ids))[order],
        rank[order],
        hit[:, :, order],
        ignored[:, :, order],
        np.bincount(objects.group[~objects.ignored[:, 0]], minlength=shape[0] * shape[1]).reshape(shape),
        np.stack([np.bincount(objects.group[~each] // shape[1], minlength=shape[0]) for each in objects.ignored.T]),
    )


def _group(categories: Ints, images: Ints, category_ids: Ints, image_ids: Ints) -> Ints:
    """The number of each pair of a category and an image; by category, there by image."""
    return np.searchsorted(category_ids, categories) * len(image_ids) + np.searchsorted(image_ids, images)


def _objects(annotations: list[Mapping[str, Any]], image_ids: Ints, category_ids: Ints) -> _Objects:
    images, categories = (
        np.array([record[name] for record in annotations], dtype=np.int64) for name in ("image_id", "category_id")
    )
    group = _group(categories, images, category_ids, image_ids)
    order = np.argsort(group, kind="stable")
    boxes = np.array([record["bbox"] for record in annotations], dtype=np.float64).reshape(-1, 4)
    area = np.array([record["area"] for record in annotations], dtype=np.float64)
    crowd = np.array([record["iscrowd"] for record in annotations], dtype=bool)
    ignored = crowd[:, None] | _outside(area)
    return _Objects(group[order], boxes[order], crowd[order], ignored[order])


def _outside(area: Floats) -> Bools:
    """(G,) areas -> (G, A): of another size."""
    return (area[:, None] < AREAS[:, 0]) | (area[:, None] > AREAS[:, 1])


def _choose(boxes: Floats, group: Ints, objects: _Objects) -> tuple[Bools, Bools]:
    """(A, T, D) each: which detections get an object, and which are ignored.

    Args:
        boxes: (D, 4) of detections.
        group: (D,) sorted; within a group the best detection comes first.
        objects: to be matched.
    """
    num_areas, num_thresholds = len(AREAS), len(IOU_THRESHOLDS)
    hit = np.zeros((len(boxes), num_areas, num_thresholds), dtype=bool)
    ignored = np.zeros_like(hit)
    taken = np.zeros((len(objects.group), num_areas, num_thresholds), dtype=bool)
    for detection, found, iou in _turns(*_near(boxes, group, objects), group):
        free = ~taken[found] | objects.crowd[found, None, None]  # (C, A, T)
        free &= (iou[:, None] >= np.minimum(IOU_THRESHOLDS, 1 - 1e-10))[:, None]
        first = np.flatnonzero(np.diff(detection, prepend=-1))
        # Of what is free, the last wins: by IoU, then as in the file; but objects to be found before ignored ones.
        place = np.arange(len(found))[:, None, None] + np.where(objects.ignored[found], 0, len(found))[:, :, None]
        best = np.maximum.reduceat(np.where(free, place, -1), first, axis=0)  # (detections, A, T)
        which, area, threshold = np.nonzero(best >= 0)
        chosen = found[best[which, area, threshold] % len(found)]
        taken[chosen, area, threshold] = True
        hit[detection[first][which], area, threshold] = True
        ignored[detection[first][which], area, threshold] = objects.ignored[chosen, area]
    ignored |= ~hit & _outside(boxes[:, 2] * boxes[:, 3])[:, :, None]
    return hit.transpose(1, 2, 0), ignored.transpose(1, 2, 0)


def _near(boxes: Floats, group: Ints, objects: _Objects) -> tuple[Ints, Ints, Floats]:
    """Pairs (detection, object) of one group whose IoU reaches the lowest threshold, and their IoU."""
    first, last = (np.searchsorted(objects.group, group, side) for side in ("left", "right"))
    counts = last - first
    detections, found, ious = [], [], []
    for few in _pieces(counts):
        detection = np.repeat(np.arange(few.start, few.stop), counts[few])
        ends = counts[few].cumsum()
        within = np.arange(len(detection)) - np.repeat(ends - counts[few], counts[few])
        candidate = first[detection] + within
        iou = _iou(boxes[detection], objects.boxes[candidate], objects.crowd[candidate])
        near = iou >= IOU_THRESHOLDS[0]
        detections.append(detection[near])
        found.append(candidate[near])
        ious.append(iou[near])
    return np.concatenate(detections), np.concatenate(found), np.concatenate(ious)


def _pieces(counts: Ints) -> Iterator[slice]:
    """Slices of detections that have about MAX_PAIRS pairs each; one at least."""
    steps = counts.cumsum() // MAX_PAIRS
    starts = np.flatnonzero(np.diff(steps, prepend=-1)) if len(counts) else np.zeros(1, dtype=np.int64)
    for start, stop in zip(starts, [*starts[1:], len(counts)]):
        yield slice(int(start), int(stop))


def _iou(ours: Floats, theirs: Floats, crowd: Bools) -> Floats:
    """(P,) IoU of boxes x, y, width, height; of a crowd, the share of our box that it covers."""
    with np.errstate(divide="ignore", invalid="ignore"):  # boxes without area
        low, high = (
            np.maximum(ours[:, :2], theirs[:, :2]),
            np.minimum(ours[:, :2] + ours[:, 2:], theirs[:, :2] + theirs[:, 2:]),
        )
        sides = high - low
        shared = sides[:, 0] * sides[:, 1]
        area = ours[:, 2] * ours[:, 3]
        whole = np.where(crowd, area, area + theirs[:, 2] * theirs[:, 3] - shared)
        return np.where((sides > 0).all(axis=1), shared / whole, 0.0)


def _turns(detection: Ints, found: Ints, iou: Floats, group: Ints) -> Iterator[tuple[Ints, Ints, Floats]]:
    """The pairs turn by turn: in each turn one detection of each group, the first that has not had its turn.

    A detection's pairs come by ascending IoU, and equal ones as in the file.
    """
    order = np.lexsort((found, iou, detection))
    detection, found, iou = detection[order], found[order], iou[order]
    choosing = np.unique(detection)
    turn = ranks(group[choosing])[np.searchsorted(choosing, detection)]
    order = np.argsort(turn, kind="stable")
    ends = np.bincount(turn).cumsum().tolist()
    for start, end in zip([0, *ends[:-1]], ends):
        here = order[start:end]
        yield detection[here], found[here], iou[here]
