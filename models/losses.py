"""The losses between predictions and matched objects.

Shapes: L layers, B images, Q queries, K classes, T objects of all images, R queries that answer for an object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from detrbench.errors import unknown_name
from detrbench.models.boxes import cxcywh_to_xyxy, giou, iou
from detrbench.models.matcher import ALPHA, GAMMA, Matched

Losses = dict[str, Tensor]
# IoU-aware classification: share of the probability in an object's target, least target, how fast ranks lose weight.
PROBABILITY_SHARE, LEAST_QUALITY, RANK_DECAY = 0.25, 0.01, 1.5
VARIFOCAL_ALPHA = 0.75  # weight of the negatives


def set_losses(matched: Matched, num_boxes: float, iou_eps: float = 0.0) -> Losses:
    """Class, L1 and GIoU loss of each layer, (L,), each divided by the number of objects.

    Args:
        matched: who answers for what.
        num_boxes: objects of a micro-batch, mean over those of the step, at least 1.
        iou_eps: see `boxes.giou`.
    """
    logits = matched.prediction.logits
    one_hot = matched.spread(torch.ones_like(matched.query, dtype=logits.dtype))
    distance, overlap = box_losses(matched, iou_eps)
    return {
        "loss_ce": focal_loss(logits, one_hot).sum((1, 2, 3)) / num_boxes,
        "loss_bbox": matched.sums(distance) / num_boxes,
        "loss_giou": matched.sums(overlap) / num_boxes,
    }


def box_losses(matched: Matched, iou_eps: float) -> tuple[Tensor, Tensor]:
    """L1 and 1 - GIoU of each pair, (L, T, R) each."""
    predicted, wanted = matched.boxes(), matched.objects.boxes[:, None]
    overlap = giou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(wanted), iou_eps)
    return (predicted - wanted).abs().sum(-1), 1 - overlap


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Sigmoid focal loss (Lin et al., 2017), unreduced: (...) logits and (...) targets, which are 0 or 1 -> (...)."""
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    missed = torch.where(targets > 0, 1 - probability, probability)
    balance = torch.where(targets > 0, ALPHA, 1 - ALPHA)
    return balance * missed**GAMMA * entropy


def iou_aware_losses(matched: Matched, num_boxes: float, iou_eps: float = 0.0, ranked: bool = False) -> Losses:
    """Classification by the quality of the box (Align-DETR's IA-BCE, "ICE" in DAC-DETR's code), L1 and GIoU loss, (L,).

    A matched query is to reach t = p^0.25 IoU^0.75 rather than 1; everything else is pushed down by p^2.

    Args:
        matched: who answers for what.
        num_boxes: objects of a micro-batch, mean over those of the step, at least 1.
        iou_eps: see `boxes.giou`.
        ranked: several queries answer for one object, and those of lesser t count less, in all three losses.
    """
    logits = matched.prediction.logits
    quality = box_quality(matched)
    weight = torch.exp(-ranks(quality, matched.present) / RANK_DECAY) if ranked else torch.ones_like(quality)
    wanted = matched.spread(quality * weight)
    unwanted = torch.where(wanted > 0, 1 - wanted, logits.sigmoid() ** 2)
    entropy = -wanted * F.logsigmoid(logits) - unwanted * F.logsigmoid(-logits)
    distance, overlap = box_losses(matched, iou_eps)
    return {
        "loss_ce": entropy.sum((1, 2, 3)) / num_boxes,
        "loss_bbox": matched.sums(weight * distance) / num_boxes,
        "loss_giou": matched.sums(weight * overlap) / num_boxes,
    }


def varifocal_losses(matched: Matched, num_boxes: float, iou_eps: float = 0.0) -> Losses:
    """Classification by the overlap of the box (VarifocalNet, Zhang et al., 2021, as RT-DETR has it), L1, GIoU, (L,).

    A matched query is to reach the IoU of its box, which is its weight too; everything else is pushed down by 0.75 p^2.

    Args:
        matched: who answers for what.
        num_boxes: objects of a micro-batch, mean over those of the step, at least 1.
        iou_eps: see `boxes.giou`.
    """
    logits = matched.prediction.logits
    boxes, wanted = matched.boxes().detach(), matched.objects.boxes[:, None]
    target = matched.spread(iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(wanted)))
    positive = matched.spread(torch.ones_like(matched.query, dtype=logits.dtype))
    weight = VARIFOCAL_ALPHA * logits.detach().sigmoid() ** GAMMA * (1 - positive) + target
    entropy = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="none")
    distance, overlap = box_losses(matched, iou_eps)
    return {
        "loss_ce": entropy.sum((1, 2, 3)) / num_boxes,
        "loss_bbox": matched.sums(distance) / num_boxes,
        "loss_giou": matched.sums(overlap) / num_boxes,
    }


@torch.no_grad()
def box_quality(matched: Matched) -> Tensor:
    """(L, T, R) how good each pair is, from class and box together."""
    probability = matched.logits().sigmoid()
    overlap = iou(cxcywh_to_xyxy(matched.boxes()), cxcywh_to_xyxy(matched.objects.boxes[:, None]))
    return (probability**PROBABILITY_SHARE * overlap ** (1 - PROBABILITY_SHARE)).clamp(min=LEAST_QUALITY)


def ranks(quality: Tensor, present: Tensor) -> Tensor:
    """(L, T, R) place of each query among those that are present for its object, the best being 0."""
    order = quality.masked_fill(~present, -1).argsort(dim=-1, descending=True, stable=True)
    return order.argsort(dim=-1)


MatchedLosses = Callable[[Matched, float], Losses]


@dataclass(frozen=True)
class Supervision:
    """The losses of matched predictions, by who predicts; each is called as `set_losses` is.

    Attributes:
        encoder: proposals and tokens.
        decoder: queries, one for each object.
        one_to_many: queries, of which several answer for an object.
    """

    encoder: MatchedLosses
    decoder: MatchedLosses
    one_to_many: MatchedLosses


def supervision(class_loss: str, iou_eps: float) -> Supervision:
    """What the options `class_loss` and `iou_eps` ask for; an unknown class loss is a `UsageError`."""
    focal = partial(set_losses, iou_eps=iou_eps)
    aware = partial(iou_aware_losses, iou_eps=iou_eps)
    varifocal = partial(varifocal_losses, iou_eps=iou_eps)
    known = {
        "focal": Supervision(focal, focal, focal),
        "iou_aware": Supervision(focal, aware, partial(aware, ranked=True)),
        "varifocal": Supervision(varifocal, varifocal, varifocal),
    }
    if class_loss not in known:
        raise unknown_name("class_loss", class_loss, known)
    return known[class_loss]
