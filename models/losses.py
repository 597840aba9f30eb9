"""The losses between predictions and matched objects."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from detrbench.errors import unknown_name
from detrbench.models.boxes import cxcywh_to_xyxy
from detrbench.models.matcher import ALPHA, GAMMA, Matches, Target
from detrbench.models.tokens import Prediction

Losses = dict[str, Tensor]
# IoU-aware classification: share of the probability in an object's target, least target, how fast ranks lose weight.
PROBABILITY_SHARE, LEAST_QUALITY, RANK_DECAY = 0.25, 0.01, 1.5


def set_losses(
    prediction: Prediction,
    targets: list[Target],
    matches: Matches,
    num_boxes: float,
    iou_eps: float = 0.0,
) -> Losses:
    """Class, L1 and GIoU loss of one set of predictions, each divided by the number of objects.

    Args:
        prediction: logits (B, Q, K), boxes (B, Q, 4).
        targets: `labels` (n,) and `boxes` (n, 4) of each image.
        matches: see `matcher.match`.
        num_boxes: objects of a micro-batch, mean over those of the step, at least 1.
        iou_eps: see `paired_giou`.
    """
    pairs = pair_up(prediction, targets, matches)
    one_hot = torch.zeros_like(prediction.logits)
    one_hot[pairs.index] = 1
    distance, overlap = box_losses(pairs, iou_eps)
    return {
        "loss_ce": focal_loss(prediction.logits, one_hot).sum() / num_boxes,
        "loss_bbox": distance.sum() / num_boxes,
        "loss_giou": overlap.sum() / num_boxes,
    }


@dataclass
class Pairs:
    """Matched predictions and objects, images one after the other.

    Attributes:
        index: image, query and label of each pair, (n,) each: where its logit lies.
        predicted: (n, 4) predicted boxes.
        boxes: (n, 4) the objects' boxes.
        objects: (n,) number of the object within the batch.
    """

    index: tuple[Tensor, Tensor, Tensor]
    predicted: Tensor
    boxes: Tensor
    objects: Tensor


def pair_up(prediction: Prediction, targets: list[Target], matches: Matches) -> Pairs:
    """Flatten the matches of a batch; arguments as for `set_losses`."""
    image = torch.cat([torch.full_like(rows, index) for index, (rows, _) in enumerate(matches)])
    query = torch.cat([rows for rows, _ in matches])
    labels = torch.cat([target["labels"][columns] for target, (_, columns) in zip(targets, matches)])
    boxes = torch.cat([target["boxes"][columns] for target, (_, columns) in zip(targets, matches)])
    starts = itertools.accumulate((len(target["labels"]) for target in targets), initial=0)
    objects = torch.cat([columns + start for start, (_, columns) in zip(starts, matches)])
    return Pairs((image, query, labels), prediction.boxes[image, query], boxes.to(prediction.boxes), objects)


def box_losses(pairs: Pairs, iou_eps: float) -> tuple[Tensor, Tensor]:
    """L1 and 1 - GIoU of each pair, (n,) each."""
    overlap = paired_giou(cxcywh_to_xyxy(pairs.predicted), cxcywh_to_xyxy(pairs.boxes), iou_eps)
    return (pairs.predicted - pairs.boxes).abs().sum(-1), 1 - overlap


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
    """Sigmoid focal loss (Lin et al., 2017), unreduced: (...) logits and (...) targets, which are 0 or 1 -> (...)."""
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    missed = torch.where(targets > 0, 1 - probability, probability)
    balance = torch.where(targets > 0, ALPHA, 1 - ALPHA)
    return balance * missed**GAMMA * entropy


def iou_aware_losses(
    prediction: Prediction,
    targets: list[Target],
    matches: Matches,
    num_boxes: float,
    iou_eps: float = 0.0,
    ranked: bool = False,
) -> Losses:
    """Classification by the quality of the box (Align-DETR's IA-BCE, "ICE" in DAC-DETR's code), L1 and GIoU loss.

    A matched query is to reach t = p^0.25 IoU^0.75 rather than 1; everything else is pushed down by p^2.

    Args:
        prediction: logits (B, Q, K), boxes (B, Q, 4).
        targets: `labels` (n,) and `boxes` (n, 4) of each image.
        matches: see `matcher.match`.
        num_boxes: objects of a micro-batch, mean over those of the step, at least 1.
        iou_eps: see `paired_giou`.
        ranked: several queries answer for one object, and those of lesser t count less, in all three losses.
    """
    pairs = pair_up(prediction, targets, matches)
    probability = prediction.logits.sigmoid()
    quality = box_quality(pairs, probability[pairs.index])
    weight = torch.exp(-ranks(quality, pairs.objects) / RANK_DECAY) if ranked else torch.ones_like(quality)
    wanted, unwanted = torch.zeros_like(probability), probability**2
    wanted[pairs.index] = quality * weight
    unwanted[pairs.index] = 1 - quality * weight
    entropy = -wanted * F.logsigmoid(prediction.logits) - unwanted * F.logsigmoid(-prediction.logits)
    distance, overlap = box_losses(pairs, iou_eps)
    return {
        "loss_ce": entropy.sum() / num_boxes,
        "loss_bbox": (weight * distance).sum() / num_boxes,
        "loss_giou": (weight * overlap).sum() / num_boxes,
    }


@torch.no_grad()
def box_quality(pairs: Pairs, probability: Tensor) -> Tensor:
    """(n,) probabilities of the right class -> (n,) how good each pair is, from class and box together."""
    overlap = box_iou(cxcywh_to_xyxy(pairs.predicted), cxcywh_to_xyxy(pairs.boxes)).diagonal()
    return (probability**PROBABILITY_SHARE * overlap ** (1 - PROBABILITY_SHARE)).clamp(min=LEAST_QUALITY)


def ranks(quality: Tensor, objects: Tensor) -> Tensor:
    """(n,) place of each pair among those of its object, the best being 0."""
    order = quality.argsort(descending=True)
    better = order.argsort()[:, None] > order.argsort()[None]  # row comes behind column
    return (better & (objects[:, None] == objects[None])).sum(1)


MatchedLosses = Callable[[Prediction, list[Target], Matches, float], Losses]


@dataclass(frozen=True)
class Supervision:
    """The losses of matched predictions, by who predicts; each is called as `set_losses` is.

    Attributes:
        encoder: proposals and tokens, whatever the decoder learns by.
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
    known = {
        "focal": Supervision(focal, focal, focal),
        "iou_aware": Supervision(focal, aware, partial(aware, ranked=True)),
    }
    if class_loss not in known:
        raise unknown_name("class_loss", class_loss, known)
    return known[class_loss]
