"""What is usually wrong with predictions from elsewhere, told before they are scored. Imports no torch.

Each suspicion is one line, with the AP that mending would give where there is something to mend; nothing is mended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from detrbench.data.samples import Dataset
from detrbench.measure import protocols, scoring
from detrbench.measure.detections import Detections

MANY = 0.2  # share of boxes that is no accident
SLACK = 1.02  # detectors predict boxes a little beyond the border
LOWEST = 0.01  # a score that every detector gives to something in an image
USUAL = 100  # detections of an image that COCO counts


@dataclass(frozen=True)
class Suspicion:
    """One thing that looks wrong; `mended_ap` is the AP in points that mending it would give, None where unknown."""

    kind: str
    text: str
    mended_ap: float | None = None

    def __str__(self) -> str:
        return self.text if self.mended_ap is None else f"{self.text}; mended, AP would be {self.mended_ap:.1f}"


@dataclass(frozen=True)
class Diagnosis:
    """The detections of the data set's own images, and what looks wrong."""

    detections: Detections
    suspicions: list[Suspicion]


def diagnose(detections: Detections, dataset: Dataset) -> Diagnosis:
    """Looks for the usual mistakes.

    Args:
        detections: as a user's file has them.
        dataset: that they are said to be of.
    """
    truth = dataset.coco_ground_truth()
    here = np.isin(detections.image_ids, np.array(dataset.image_ids))
    own = detections.chosen(here)
    foreign = np.unique(detections.image_ids[~here])
    found = []
    if len(foreign):
        text = f"{len(foreign)} images are not in the data set (id {foreign[0]}, ...): do they belong to another split?"
        found.append(Suspicion("foreign_images", f"{text} their {np.count_nonzero(~here)} detections are left out"))
    if not len(own):
        return Diagnosis(own, found)
    found += [*_categories(own, dataset), *_boxes(own, dataset, truth), *_coverage(own, truth)]
    found += [*_scores(own), *_duplicates(own, dataset)]
    return Diagnosis(own, found)


def _ap(detections: Detections, dataset: Dataset) -> float | None:
    return scoring.points(scoring.score(detections, dataset, protocols.get("accuracy")).stats)["AP"]


def _categories(own: Detections, dataset: Dataset) -> Iterator[Suspicion]:
    """Labels counted from 0 or from 1 where the data set's ids have gaps or begin elsewhere."""
    ids = np.array([category.id for category in dataset.categories])
    used = np.unique(own.category_ids)
    unknown = used[~np.isin(used, ids)]
    if len(unknown):
        share = np.isin(own.category_ids, unknown).mean()
        text = f"{len(unknown)} category ids are not in the data set ({unknown[0]}, ...): {share:.0%} of the detections"
        yield Suspicion("unknown_categories", text)
    for first in (0, 1):
        numbers = np.arange(first, first + len(ids))
        if np.array_equal(numbers, ids) or used[0] < first or used[-1] > numbers[-1]:
            continue
        mended = _ap(replace(own, category_ids=ids[own.category_ids - first]), dataset)
        if mended is not None and mended > (_ap(own, dataset) or 0) + 1:
            text = (
                f"category ids look like labels {first} to {numbers[-1]}, but the ids of the data set go to {ids[-1]}"
            )
            yield Suspicion("labels_for_ids", text, mended)


def _boxes(own: Detections, dataset: Dataset, truth: Mapping[str, Any]) -> Iterator[Suspicion]:
    """Boxes in fractions of the image, and corners in place of width and height."""
    sizes_of = {record["id"]: (record["width"], record["height"]) for record in truth["images"]}
    sizes = np.array([sizes_of[image] for image in own.image_ids.tolist()], dtype=np.float64)  # (D, 2)
    negative = np.count_nonzero((own.boxes[:, 2:] < 0).any(axis=1))
    if negative:
        yield Suspicion("negative_sizes", f"{negative} boxes have a negative width or height")
    fractions = own.boxes.max() <= SLACK and sizes.min() > 4
    scaled = replace(own, boxes=own.boxes * np.tile(sizes, 2)) if fractions else own
    corners = _look_like_corners(scaled.boxes, sizes)
    mended = replace(scaled, boxes=_from_corners(scaled.boxes)) if corners else scaled
    if fractions or corners:
        what = (
            "boxes are fractions from 0 to 1 and not pixels" if fractions else "boxes look like corners x1, y1, x2, y2"
        )
        also = ", and look like corners x1, y1, x2, y2" if fractions and corners else ""
        text = f"{what}{also}; expected x, y, width, height in pixels"
        yield Suspicion("fractions" if fractions else "corners", text, _ap(mended, dataset))


def _look_like_corners(boxes: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64]) -> bool:
    """Whether many boxes leave their image as x, y, width, height, and nearly none as corners."""
    beyond = (boxes[:, :2] + boxes[:, 2:] > SLACK * sizes + 1).any(axis=1).mean()
    within = ((boxes[:, 2:] <= SLACK * sizes + 1) & (boxes[:, 2:] >= boxes[:, :2])).all(axis=1).mean()
    return bool(beyond > MANY and within > 0.99)


def _from_corners(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _coverage(own: Detections, truth: Mapping[str, Any]) -> Iterator[Suspicion]:
    known = {record["id"] for record in truth["images"]}
    missing = known - set(own.image_ids.tolist())
    if missing:
        lost = sum(record["image_id"] in missing and not record["iscrowd"] for record in truth["annotations"])
        text = f"{len(missing)} of {len(known)} images have no detection (id {min(missing)}, ...)"
        yield Suspicion("no_detections", f"{text}; they hold {lost} objects")


def _scores(own: Detections) -> Iterator[Suspicion]:
    """Scores that all lie above some threshold, in images that have room for more."""
    lowest, highest = own.scores.min(), own.scores.max()
    if highest > 1:
        yield Suspicion("scores", f"scores go to {highest:.4g}: are they percents or logits? (only their order counts)")
    most = np.unique(own.image_ids, return_counts=True)[1].max()
    if lowest >= LOWEST and most < USUAL:
        text = (
            f"no score is below {lowest:.3g}, no image has more than {most} detections: were they cut at a threshold?"
        )
        yield Suspicion("threshold", f"{text} AP gains by those of low score")


def _duplicates(own: Detections, dataset: Dataset) -> Iterator[Suspicion]:
    columns = np.column_stack([own.image_ids, own.category_ids, own.boxes])
    order = np.lexsort((-own.scores, *columns.T))  # the best of equal ones is kept
    same = (columns[order][1:] == columns[order][:-1]).all(axis=1)
    repeated = order[1:][same]
    if len(repeated):
        keep = np.ones(len(own), dtype=bool)
        keep[repeated] = False
        text = f"{len(repeated)} detections repeat the image, category and box of another"
        yield Suspicion("duplicates", text, _ap(own.chosen(keep), dataset))
