"""COCO box AP of a detector: detect (`collect`), then score (`evaluate`, which needs no detector)."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from detrbench import models, statistics
from detrbench.data import Dataset
from detrbench.data.loading import Batch
from detrbench.data.transforms import Transform
from detrbench.measure import ap_interval
from detrbench.measure.ap_interval import Replicates
from detrbench.measure.inference import Progress, over_images
from detrbench.measure.protocols.accuracy import AccuracyProtocol
from detrbench.models.detector import DetectorOutput
from detrbench.results.records import Accuracy, Estimate

# pycocotools' 12 figures, in its order.
STATS = ("AP", "AP50", "AP75", "APS", "APM", "APL", "AR1", "AR10", "AR100", "ARS", "ARM", "ARL")

Detection = dict[str, Any]  # COCO's result format: image_id, category_id, bbox [x, y, width, height], score


def collect(
    detector: nn.Module,
    dataset: Dataset,
    protocol: AccuracyProtocol,
    device: torch.device | str = "cpu",
    batch_size: int = 1,
    transform: Transform | None = None,
    progress: Progress | None = None,
    num_workers: int = 0,
    observe: Callable[[DetectorOutput, Batch], None] = lambda out, batch: None,
) -> list[Detection]:
    """Run the detector over a data set.

    Args:
        detector: moved to `device`; its training mode is restored afterwards.
        dataset: gives images and the category ids of labels.
        protocol: how many detections an image keeps, and NMS.
        device: where to run.
        batch_size: images in a batch.
        transform: by default the papers' test transform (800/1333).
        progress: as for `inference.over_images`.
        num_workers: threads that load images.
        observe: is shown each batch with the detector's output, for what else can be read from the same forward.

    Returns:
        COCO's result format, boxes in pixels of the stored image. Labels without a category are dropped.
    """
    categories = category_ids(dataset)
    detections: list[Detection] = []

    def see(out: DetectorOutput, batch: Batch) -> None:
        observe(out, batch)
        detections.extend(_detected(out, batch, protocol, categories))

    over_images(detector, dataset, see, device, batch_size, transform, progress, num_workers)
    return detections


def _detected(
    out: DetectorOutput, batch: Batch, protocol: AccuracyProtocol, categories: dict[int, int]
) -> list[Detection]:
    found = models.postprocess(out, batch.sizes, top=protocol.top, nms=protocol.nms)
    return [
        {"image_id": image_id, "category_id": categories[label], "bbox": _xywh(box), "score": score}
        for image_id, each in zip(batch.image_ids, found)
        for score, label, box in zip(each.scores.tolist(), each.labels.tolist(), each.boxes.tolist())
        if label in categories
    ]


def _xywh(box: list[float]) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]


def category_ids(dataset: Dataset) -> dict[int, int]:
    """Label -> category id, for the labels that have one."""
    known = {category.id for category in dataset.categories}
    table = {}
    for label in range(dataset.num_classes):
        with contextlib.suppress(LookupError):
            if dataset.to_category_id(label) in known:
                table[label] = dataset.to_category_id(label)
    return table


def evaluate(
    detections: list[Detection],
    dataset: Dataset,
    protocol: AccuracyProtocol,
    replicates: int = statistics.REPLICATES,
    seed: int = 0,
) -> Accuracy:
    """Score detections with pycocotools.

    Args:
        detections: as from `collect`; may be empty.
        dataset: gives the ground truth.
        protocol: detections of one class that count in an image.
        replicates: bootstrap resamples of images for the intervals of AP and AP50.
        seed: of the resamples; equal seeds draw equal images, so differences of detectors can be paired.
    """
    scored = score(detections, dataset, protocol)
    drawn = ap_interval.bootstrap(ap_interval.read_matches(scored), replicates, seed)
    return summarise(scored, dataset, protocol, drawn)


def summarise(scored: Any, dataset: Dataset, protocol: AccuracyProtocol, drawn: Replicates) -> Accuracy:
    """The record of what `score` returned; a figure that does not exist (no such objects) is None.

    Args:
        scored: from `score`.
        dataset: names the categories.
        protocol: is named in the record.
        drawn: bootstrap replicates of AP and AP50, for their intervals.
    """
    stats = {name: _points(value) for name, value in zip(STATS, scored.stats)}
    num_images = len(dataset)
    return Accuracy(
        protocol=protocol.name,
        protocol_version=protocol.version,
        convention=f"{protocol.convention}; intervals: 1.96 standard deviations of the bootstrap over images",
        num_images=num_images,
        stats=stats,
        per_class=_per_class(scored, dataset),
        ap=_estimate(stats["AP"], drawn.ap, num_images),
        ap50=_estimate(stats["AP50"], drawn.ap50, num_images),
    )


def score(detections: list[Detection], dataset: Dataset, protocol: AccuracyProtocol) -> Any:
    """A `pycocotools.cocoeval.COCOeval` after evaluate, accumulate and summarize, silently."""
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = dataset.coco_ground_truth()
        scored = COCOeval(_coco(truth), _coco(_results(detections, truth)), "bbox")
        scored.params.maxDets = [1, 10, protocol.max_detections]
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    return scored


def _coco(document: dict[str, Any]) -> Any:
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = document
    coco.createIndex()
    return coco


def _results(detections: list[Detection], truth: dict[str, Any]) -> dict[str, Any]:
    # What COCO.loadRes makes of results; it refuses an empty list.
    annotations = [
        {**detection, "id": number, "area": detection["bbox"][2] * detection["bbox"][3], "iscrowd": 0}
        for number, detection in enumerate(detections, start=1)
    ]
    return {"images": truth["images"], "categories": truth["categories"], "annotations": annotations}


def _per_class(scored: Any, dataset: Dataset) -> dict[str, float | None]:
    precision_TRK = scored.eval["precision"][:, :, :, 0, -1]  # all sizes, most detections
    names = {category.id: category.name for category in dataset.categories}
    ids = scored.params.catIds
    return {names[category]: _points(precision_TRK[:, :, index].mean()) for index, category in enumerate(ids)}


def _points(value: float) -> float | None:
    """0..1 -> 0..100; pycocotools' -1 stands for a figure that does not exist."""
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
