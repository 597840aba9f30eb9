"""Hungarian matching of predictions to objects (DETR, equation 1, with focal class cost).

Everything that a training step matches is matched together, so that its costs come to the host in one copy: each copy
waits for the device. Shapes: L layers, B images, Q queries, K classes, T objects of all images, R queries that answer
for an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from detrbench.errors import Diverged
from detrbench.models.boxes import cxcywh_to_xyxy, giou
from detrbench.models.precision import in_full
from detrbench.models.targets import Objects
from detrbench.models.tokens import Prediction
from detrbench.models.transfer import upload

CLASS_COST, L1_COST, GIOU_COST = 2.0, 5.0, 2.0
ALPHA, GAMMA = 0.25, 2.0


@dataclass(frozen=True)
class Unmatched:
    """Layers of predictions that are to be matched to the same objects, each on its own.

    Attributes:
        prediction: logits (L, B, Q, K), boxes (L, B, Q, 4).
        objects: of the B images.
        anchors: (L, B, Q, 4), boxes that are matched in place of the predicted ones, whatever the classes say.
    """

    prediction: Prediction
    objects: Objects
    anchors: Tensor | None = None

    def cost(self) -> Tensor:
        """(L, T, Q) of each query of the object's image."""
        if self.anchors is not None:
            return box_cost(self.anchors, self.objects)
        return matching_cost(self.prediction, self.objects)


@dataclass(frozen=True)
class Matched:
    """Who answers for what in layers of predictions.

    Attributes:
        prediction: logits (L, B, Q, K), boxes (L, B, Q, 4).
        objects: of the B images.
        query: (L, T, R) queries of the object's image that answer for it.
        present: (L, T, R) bool, False where fewer answer than there is room for; such a query means nothing.
        labelled: (L, T, R) bool, those of `present` whose query learns the object's label; None for all of them.
    """

    prediction: Prediction
    objects: Objects
    query: Tensor
    present: Tensor
    labelled: Tensor | None = None

    def boxes(self) -> Tensor:
        """(L, T, R, 4) the predicted boxes."""
        return self.prediction.boxes[self._layer(), self.objects.image[:, None], self.query]

    def logits(self) -> Tensor:
        """(L, T, R) the logits of the objects' labels."""
        place = self._layer(), self.objects.image[:, None], self.query, self.objects.labels[:, None]
        return self.prediction.logits[place]

    def spread(self, values: Tensor) -> Tensor:
        """(L, T, R) values -> (L, B, Q, K), each at the logit that is to learn it, 0 elsewhere."""
        layers, images, queries, classes = self.prediction.logits.shape
        spread = values.new_zeros(layers, images, queries + 1, classes)  # the last query is nobody's
        query = torch.where(self.present if self.labelled is None else self.labelled, self.query, queries)
        spread[self._layer(), self.objects.image[:, None], query, self.objects.labels[:, None]] = values
        return spread[:, :, :queries]

    def sums(self, values: Tensor) -> Tensor:
        """(L, T, R) values -> (L,), their sums over those who are present."""
        return torch.where(self.present, values, 0).sum((1, 2))

    def _layer(self) -> Tensor:
        """(L, 1, 1) the layers' numbers."""
        return torch.arange(len(self.query), device=self.query.device)[:, None, None]


def stacked(layers: Sequence[Prediction]) -> Prediction:
    """Predictions of one shape, logits (B, Q, K), as layers of one, (L, B, Q, K), in float32 at least."""
    logits, boxes = (torch.stack([getattr(layer, name) for layer in layers]) for name in ("logits", "boxes"))
    return Prediction(in_full(logits), in_full(boxes))


@torch.no_grad()
def match(asked: Sequence[Unmatched]) -> list[Matched]:
    """The assignments of least cost, one prediction an object; where there are too few, some objects go without.

    Waits for the device once.

    Raises:
        Diverged: a prediction is not finite.
    """
    if not asked:
        return []
    costs = [each.cost() for each in asked]
    values = torch.cat([cost.flatten() for cost in costs]).cpu().numpy()
    if not np.isfinite(values).all():
        raise Diverged("training diverged: predictions are not finite", "lower lr, or raise warmup_steps")
    pieces = np.split(values, np.cumsum([cost.numel() for cost in costs])[:-1])
    found = [assign(piece.reshape(cost.shape), each.objects) for piece, cost, each in zip(pieces, costs, asked)]
    device = costs[0].device
    queries = upload(torch.from_numpy(np.concatenate([query.ravel() for query in found])), device)
    parts = queries.split([query.size for query in found])
    return [
        Matched(each.prediction, each.objects, part.clamp(min=0).view(*query.shape, 1), part.view(*query.shape, 1) >= 0)
        for each, part, query in zip(asked, parts, found)
    ]


def matching_cost(prediction: Prediction, objects: Objects) -> Tensor:
    """(L, B, Q, K) logits, (L, B, Q, 4) boxes, T objects -> (L, T, Q) cost of each query of the object's image."""
    return class_cost(prediction.logits, objects) + box_cost(prediction.boxes, objects)


def class_cost(logits: Tensor, objects: Objects) -> Tensor:
    """(L, B, Q, K) logits, T objects -> (L, T, Q) focal cost of each query of the object's image."""
    probability = label_logits(logits, objects).sigmoid()
    eps = 1e-8
    positive = ALPHA * (1 - probability) ** GAMMA * -(probability + eps).log()
    negative = (1 - ALPHA) * probability**GAMMA * -(1 - probability + eps).log()
    return CLASS_COST * (positive - negative)


def box_cost(boxes: Tensor, objects: Objects) -> Tensor:
    """(L, B, Q, 4) boxes, T objects -> (L, T, Q) L1 and GIoU cost of each query of the object's image."""
    boxes, wanted = boxes[:, objects.image], objects.boxes[:, None]  # (L, T, Q, 4), (T, 1, 4)
    distance = (boxes - wanted).abs().sum(-1)
    overlap = giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(wanted))
    return L1_COST * distance - GIOU_COST * overlap


def label_logits(logits: Tensor, objects: Objects) -> Tensor:
    """(L, B, Q, K) -> (L, T, Q), what each query of an object's image says of its label."""
    return logits[:, objects.image, :, objects.labels].transpose(0, 1)


def assign(cost: np.ndarray, objects: Objects) -> np.ndarray:
    """(L, T, Q) cost -> (L, T) query of each object, -1 for none."""
    from scipy.optimize import linear_sum_assignment  # takes longer to import than a small detector to build

    query = np.full(cost.shape[:2], -1)
    for layer, layer_query in zip(cost, query):
        start = 0
        for count in objects.counts:
            rows, columns = linear_sum_assignment(layer[start : start + count])
            layer_query[start + rows] = columns
            start += count
    return query
