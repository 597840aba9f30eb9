"""Boxes, their overlap and their logits."""

from __future__ import annotations

import torch
from torch import Tensor


def inverse_sigmoid(x: Tensor, eps: float) -> Tensor:
    """(...) -> (...), log(x / (1 - x)) of x clamped to [0, 1], with both terms kept at `eps` or more."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(..., 4) centre and size -> corners."""
    centre, size = boxes.split(2, -1)
    return torch.cat([centre - size / 2, centre + size / 2], -1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """(..., 4) corners -> centre and size."""
    low, high = boxes.split(2, -1)
    return torch.cat([(low + high) / 2, high - low], -1)


def iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of each box with its partner; (..., 4) corners both, which broadcast -> (...)."""
    shared, union = _shared_and_union(first, second)
    return shared / union


def giou(first: Tensor, second: Tensor, eps: float = 0.0) -> Tensor:
    """Generalised IoU (Rezatofighi et al., 2019) of each box with its partner; (..., 4) corners both -> (...).

    `eps` is added to the areas of union and hull, as some code bases do against a division by zero.
    """
    shared, union = _shared_and_union(first, second)
    low, high = torch.minimum(first[..., :2], second[..., :2]), torch.maximum(first[..., 2:], second[..., 2:])
    hull = _area(low, high)
    return shared / (union + eps) - (hull - union) / (hull + eps)


def _shared_and_union(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    shared = _area(low, high)
    area = _area(first[..., :2], first[..., 2:]) + _area(second[..., :2], second[..., 2:])
    return shared, area - shared


def _area(low: Tensor, high: Tensor) -> Tensor:
    """(..., 2) corners -> (...), 0 where they are the wrong way round."""
    # A product of two, since the gradient of `prod` waits for the device.
    width, height = (high - low).clamp(min=0).unbind(-1)
    return width * height
