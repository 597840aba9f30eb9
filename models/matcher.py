"""Hungarian matching of predictions to objects (DETR, equation 1, with focal class cost)."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import generalized_box_iou

from detrbench.errors import Diverged
from detrbench.models.boxes import cxcywh_to_xyxy
from detrbench.models.tokens import Prediction

CLASS_COST, L1_COST, GIOU_COST = 2.0, 5.0, 2.0
ALPHA, GAMMA = 0.25, 2.0
Target = dict[str, Tensor]
Matches = list[tuple[Tensor, Tensor]]


@torch.no_grad()
def match(prediction: Prediction, targets: list[Target]) -> Matches:
    """The assignment of least cost, one prediction an object.

    Args:
        prediction: logits (B, Q, K), boxes (B, Q, 4).
        targets: for each image `labels` (n,) and `boxes` (n, 4), cx, cy, w, h in [0, 1].

    Returns:
        For each image the indices of the matched predictions, ascending, and of their objects.
    """
    matches = []
    for logits, boxes, target in zip(prediction.logits, prediction.boxes, targets):
        cost = matching_cost(logits, boxes, target).cpu().numpy()
        if not np.isfinite(cost).all():
            raise Diverged("training diverged: predictions are not finite", "lower lr, or raise warmup_steps")
        rows, columns = linear_sum_assignment(cost)
        matches.append((torch.from_numpy(rows).to(boxes.device), torch.from_numpy(columns).to(boxes.device)))
    return matches


def matching_cost(logits: Tensor, boxes: Tensor, target: Target) -> Tensor:
    """(Q, K) logits, (Q, 4) boxes, n objects -> (Q, n) cost."""
    probability = logits.sigmoid()[:, target["labels"]]
    eps = 1e-8
    positive = ALPHA * (1 - probability) ** GAMMA * -(probability + eps).log()
    negative = (1 - ALPHA) * probability**GAMMA * -(1 - probability + eps).log()
    distance = torch.cdist(boxes, target["boxes"].to(boxes), p=1)
    overlap = generalized_box_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target["boxes"].to(boxes)))
    return CLASS_COST * (positive - negative) + L1_COST * distance - GIOU_COST * overlap
