"""From predictions to detections in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from detrbench.errors import NotFinite
from detrbench.models.boxes import cxcywh_to_xyxy


class Predicts(Protocol):
    """A detector's output, as far as detections follow from it: logits (B, Q, K), boxes (B, Q, 4) cx, cy, w, h."""

    @property
    def pred_logits(self) -> Tensor:
        """(B, Q, K)."""
        ...

    @property
    def pred_boxes(self) -> Tensor:
        """(B, Q, 4)."""
        ...


@dataclass
class Detections:
    """One image's detections, best first: scores (n,), labels (n,) int64, boxes (n, 4) x1, y1, x2, y2 in pixels."""

    scores: Tensor
    labels: Tensor
    boxes: Tensor


@torch.no_grad()
def detections(
    out: Predicts, sizes: Tensor | Sequence[tuple[int, int]], top: int, nms: float | None
) -> list[Detections]:
    """The best (query, class) pairs of each image.

    Args:
        out: a detector's output.
        sizes: (B, 2) height and width of each image, in the pixels that boxes are wanted in.
        top: how many pairs to keep, over queries times classes.
        nms: IoU above which the lower of two boxes of a class goes (before the cut at `top`, on the best 10000, as
            DAC-DETR's evaluation does); None for no suppression, as the other papers.

    Raises:
        NotFinite: see `check_finite`.
    """
    check_finite(out, [f"image {number} of the batch" for number in range(len(out.pred_logits))])
    probability = out.pred_logits.sigmoid()
    num_classes = probability.shape[-1]
    scores, index = probability.flatten(1).topk(min(top if nms is None else 10_000, probability[0].numel()), dim=1)
    scale = torch.as_tensor(sizes).to(out.pred_boxes).flip(-1).repeat(1, 2)  # w, h, w, h
    boxes = cxcywh_to_xyxy(out.pred_boxes) * scale[:, None]
    results = []
    for image in range(len(scores)):
        labels, box = index[image] % num_classes, boxes[image, index[image] // num_classes]
        found = Detections(scores[image], labels, box)
        if nms is not None:
            keep = batched_nms(box, found.scores, labels, nms)[:top]
            found = Detections(found.scores[keep], labels[keep], box[keep])
        results.append(found)
    return results


@torch.no_grad()
def check_finite(out: Predicts, names: Sequence[object]) -> None:
    """Refuse predictions that are no numbers: comparisons with them are false, so scoring would take them for hits.

    Args:
        out: a detector's output.
        names: of the images, for the message.

    Raises:
        NotFinite: names the first image with such a prediction.
    """
    finite = out.pred_logits.isfinite().flatten(1).all(1) & out.pred_boxes.isfinite().flatten(1).all(1)
    if not bool(finite.all()):
        name = names[int(finite.logical_not().nonzero()[0])]
        raise NotFinite(f"{name}: the detector's predictions are not finite", "its weights are broken or diverged")
