"""The losses between predictions and matched objects."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from detrbench.models.boxes import cxcywh_to_xyxy
from detrbench.models.matcher import ALPHA, GAMMA, Matches, Target
from detrbench.models.tokens import Prediction

Losses = dict[str, Tensor]


def set_losses(
    prediction: Prediction, targets: list[Target], matches: Matches, num_boxes: float, iou_eps: float = 0.0
) -> Losses:
    """Class, L1 and GIoU loss of one set of predictions, each divided by the number of objects.

    Args:
        prediction: logits (B, Q, K), boxes (B, Q, 4).
        targets: `labels` (n,) and `boxes` (n, 4) of each image.
        matches: see `matcher.match`.
        num_boxes: objects in the batch, mean over processes, at least 1.
        iou_eps: see `paired_giou`.
    """
    image = torch.cat([torch.full_like(rows, index) for index, (rows, _) in enumerate(matches)])
    query = torch.cat([rows for rows, _ in matches])
    labels = torch.cat([target["labels"][columns] for target, (_, columns) in zip(targets, matches)])
    boxes = torch.cat([target["boxes"][columns] for target, (_, columns) in zip(targets, matches)])
    predicted, boxes = prediction.boxes[image, query], boxes.to(prediction.boxes)
    one_hot = torch.zeros_like(prediction.logits)
    one_hot[image, query, labels] = 1
    overlap = paired_giou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(boxes), iou_eps)
    return {
        "loss_ce": focal_loss(prediction.logits, one_hot).sum() / num_boxes,
        "loss_bbox": (predicted - boxes).abs().sum() / num_boxes,
        "loss_giou": (1 - overlap).sum() / num_boxes,
    }


def paired_giou(first: Tensor, second: Tensor, eps: float = 0.0) -> Tensor:
    """Generalised IoU (Rezatofighi et al., 2019) of each box with its partner; (n, 4) corners both -> (n,).

    `eps` is added to the areas of union and hull, as some code bases do against a division by zero.
    """
    area = (first[:, 2:] - first[:, :2]).prod(-1) + (second[:, 2:] - second[:, :2]).prod(-1)
    low, high = torch.maximum(first[:, :2], second[:, :2]), torch.minimum(first[:, 2:], second[:, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    union = area - shared
    low, high = torch.minimum(first[:, :2], second[:, :2]), torch.maximum(first[:, 2:], second[:, 2:])
    hull = (high - low).clamp(min=0).prod(-1)
    return shared / (union + eps) - (hull - union) / (hull + eps)


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Sigmoid focal loss (Lin et al., 2017), unreduced; `targets` are 0 or 1, of the shape of `logits`."""
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    missed = torch.where(targets > 0, 1 - probability, probability)
    balance = torch.where(targets > 0, ALPHA, 1 - ALPHA)
    return balance * missed**GAMMA * entropy
