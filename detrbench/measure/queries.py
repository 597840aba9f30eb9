"""How queries gather around objects, and what self-attention does to them: DAC-DETR's Figures 3 and 1.

A query counts for an object by the score that DAC-DETR assigns queries with in training; here it is taken of what
inference returns, so that any detector can be measured. For the second figure the decoder runs once more on the same
queries and memory without self-attention. Shapes: Q queries, n objects of an image, N layers, T thresholds.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detrbench import statistics
from detrbench.data import Dataset
from detrbench.data.loading import Batch
from detrbench.data.transforms import Transform
from detrbench.measure.inference import Progress, over_images
from detrbench.measure.protocols.queries import QueriesProtocol
from detrbench.models.assignment import matching_scores
from detrbench.models.boxes import cxcywh_to_xyxy
from detrbench.models.detector import Detector, DetectorOutput
from detrbench.models.targets import Objects, Target
from detrbench.models.tokens import Prediction
from detrbench.ranks import Ranks
from detrbench.results.records import Estimate, QueryGathering, QuerySpread, Trajectories

# Trajectories are kept of so many images, and of the largest objects in each: enough for a picture.
PICTURED_IMAGES, PICTURED_OBJECTS = 4, 5


def measure(
    detector: Detector,
    dataset: Dataset,
    protocol: QueriesProtocol,
    device: torch.device | str = "cpu",
    batch_size: int = 1,
    transform: Transform | None = None,
    progress: Progress | None = None,
) -> QueryGathering:
    """Both figures of a detector on a data set; arguments as `inference.over_images` takes them."""
    gathering = Gathering(protocol.thresholds)
    spreads: list[Spread] = []
    pictures: list[Trajectories] = []

    def see(out: DetectorOutput, batch: Batch) -> None:
        gathering.add(out, batch)
        for index, ways in enumerate(_ways(detector, out)):
            place = Place(ways, batch, index)
            spreads.append(place.spread(protocol.nearest))
            if len(batch.targets[index]["boxes"]) and len(pictures) < PICTURED_IMAGES:
                pictures.append(place.trajectories(protocol.nearest))

    over_images(detector, dataset, see, device, batch_size, transform, progress, outputs="all")
    return summarise(gathering, spreads, pictures, protocol)


class Gathering:
    """Counts, image by image, the queries whose score for an object is above each threshold; see `gathered`."""

    def __init__(self, thresholds: Sequence[float]) -> None:
        self.thresholds = tuple(thresholds)
        self.objects: list[int] = []
        self.counts: list[list[int]] = []  # image by image, T

    def add(self, out: DetectorOutput, batch: Batch) -> None:
        """The images of a batch; as `accuracy.collect` shows them to an observer."""
        for boxes, logits, target in zip(out.pred_boxes, out.pred_logits, batch.targets):
            self.objects.append(len(target["boxes"]))
            self.counts.append(gathered(boxes, logits, target, self.thresholds))

    def share(self, ranks: Ranks) -> None:
        """Takes in what the other processes saw."""
        everyone = ranks.share(lambda: (self.objects, self.counts))
        self.objects, self.counts = (list(itertools.chain(*each)) for each in zip(*everyone))

    def estimates(self) -> dict[str, Estimate]:
        """Mean over objects by threshold, with intervals over images."""
        counts = np.array(self.counts).T
        found = statistics.bootstrap_ratios(counts, self.objects, "queries per object")
        return {f"{threshold:g}": estimate for threshold, estimate in zip(self.thresholds, found)}

    def means(self) -> dict[str, float | None]:
        """The same means as entries of a training history; None without an object."""
        objects = sum(self.objects)
        totals = np.array(self.counts).sum(axis=0).tolist()
        return {
            f"queries_above_{threshold:g}": total / objects if objects else None
            for threshold, total in zip(self.thresholds, totals)
        }


def gathered(boxes: Tensor, logits: Tensor, target: Target, thresholds: Sequence[float]) -> list[int]:
    """(T,) pairs of a query and an object of one image with a matching score above each threshold.

    Args:
        boxes: (Q, 4) cx, cy, w, h.
        logits: (Q, K).
        target: `labels` (n,) and `boxes` (n, 4).
        thresholds: T of them.
    """
    scores = matching_scores(boxes[None, None], logits[None, None], Objects.of([target], boxes))  # (1, n, Q)
    return [int((scores > threshold).sum()) for threshold in thresholds]


@dataclass(frozen=True)
class Spread:
    """Of one image, in percent of its diagonal, each (2, N + 1): with and without self-attention, layer by layer.

    `to_object` is summed over the objects; `to_neighbour` is the mean over the queries.
    """

    to_object: np.ndarray
    to_neighbour: np.ndarray


@dataclass(frozen=True)
class Place:
    """The queries of one image of a batch: centres (2, N + 1, Q, 2), with and without self-attention, as fractions."""

    centres: Tensor
    batch: Batch
    image: int

    @property
    def objects(self) -> Tensor:
        """(n, 4) cx, cy, w, h."""
        return self.batch.targets[self.image]["boxes"].to(self.centres)

    def spread(self, nearest: int) -> Spread:
        """Distances to objects and between queries."""
        size = self.batch.sizes[self.image].to(self.centres).flip(-1)  # width, height
        scale = 100 * size / size.norm()
        centres, objects = self.centres * scale, self.objects[:, :2] * scale
        to_object = distance_to_objects(centres, objects, nearest).sum(-1)
        to_neighbour = distance_to_neighbours(centres).mean(-1)
        return Spread(to_object.cpu().numpy(), to_neighbour.cpu().numpy())

    def trajectories(self, nearest: int) -> Trajectories:
        """Of the queries that end nearest to the largest objects."""
        largest = self.objects[:, 2:].prod(-1).argsort(descending=True, stable=True)[:PICTURED_OBJECTS]
        objects = self.objects[largest]
        ends = torch.cdist(objects[:, :2], self.centres[0, -1])
        chosen = ends.topk(min(nearest, ends.shape[1]), largest=False).indices.unique()
        height, width = self.batch.sizes[self.image].tolist()
        with_mixing, without = (_rounded(way[:, chosen]) for way in self.centres)
        return Trajectories(
            image_id=self.batch.image_ids[self.image],
            height=height,
            width=width,
            object_boxes=_rounded(cxcywh_to_xyxy(objects)),
            queries=chosen.tolist(),
            with_self_attention=with_mixing,
            without_self_attention=without,
        )


def _ways(detector: Detector, out: DetectorOutput) -> Tensor:
    """(B, 2, N + 1, Q, 2) centres of the queries by layer, with and without self-attention."""
    start = out.queries.reference_points[..., :2]

    def way(layers: list[Prediction]) -> Tensor:
        return torch.stack([start, *(layer.boxes[..., :2] for layer in layers)], 1)

    return torch.stack([way(out.layers), way(detector.without_self_attention(out))], 1)


def distance_to_objects(centres: Tensor, objects: Tensor, nearest: int) -> Tensor:
    """(..., Q, 2) and (n, 2) -> (..., n): each object's mean distance to its nearest queries."""
    distances = _distances(objects, centres)  # (..., n, Q)
    return distances.topk(min(nearest, distances.shape[-1]), largest=False).values.mean(-1)


def distance_to_neighbours(centres: Tensor) -> Tensor:
    """(..., Q, 2) -> (..., Q): each query's distance to the nearest other one; infinite where there is none."""
    distances = _distances(centres, centres)
    itself = torch.eye(centres.shape[-2], dtype=torch.bool, device=centres.device)
    return distances.masked_fill(itself, torch.inf).amin(-1)


def _distances(first: Tensor, second: Tensor) -> Tensor:
    # The faster way by matrix products loses small distances to rounding.
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def _rounded(places: Tensor) -> Any:
    """Nested lists with four decimals: less than a pixel."""
    return (places.double() * 1e4).round().div(1e4).tolist()


def summarise(
    gathering: Gathering, spreads: list[Spread], pictures: list[Trajectories], protocol: QueriesProtocol
) -> QueryGathering:
    """From what each image gave to the record."""
    to_object = np.stack([spread.to_object for spread in spreads], -1)  # (2, N + 1, images)
    to_neighbour = np.stack([spread.to_neighbour for spread in spreads], -1)
    unit = "% of the image's diagonal"

    def side(index: int) -> QuerySpread:
        return QuerySpread(
            to_object=statistics.bootstrap_ratios(to_object[index], gathering.objects, unit),
            to_neighbour=statistics.bootstrap_ratios(to_neighbour[index], np.ones(len(spreads)), unit),
        )

    return QueryGathering(
        protocol=protocol.name,
        protocol_version=protocol.version,
        convention=protocol.convention,
        num_images=len(spreads),
        num_objects=sum(gathering.objects),
        per_object=gathering.estimates(),
        with_self_attention=side(0),
        without_self_attention=side(1),
        trajectories=pictures,
    )
