"""The training objective: a sum of terms, each brought by the part that needs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from detrbench.models.losses import Losses, MatchedLosses, Supervision, supervision
from detrbench.models.matcher import Target, match
from detrbench.models.tokens import Prediction

if TYPE_CHECKING:
    from detrbench.models.detector import DetectorOutput

BOX_WEIGHTS = {"loss_bbox": 5.0, "loss_giou": 2.0}


class LossTerm(nn.Module):
    """One term of the objective, called as `term(out, targets, num_boxes, supervision)`; returns named losses.

    `num_boxes` is `Criterion.forward`'s: it may be below 1, which no loss is divided by.

    Attributes:
        weights: by the stem of a loss's name (without its layer suffix), where the criterion has none for it.
    """

    weights: ClassVar[dict[str, float]] = {}


def matched_losses(
    losses: MatchedLosses, prediction: Prediction, targets: list[Target], num_boxes: float, suffix: str
) -> Losses:
    """Matches one prediction, (B, Q, K) and (B, Q, 4), to the objects and names its losses with a suffix."""
    found = losses(prediction, targets, match(prediction, targets), max(num_boxes, 1.0))
    return {name + suffix: loss for name, loss in found.items()}


class Criterion(nn.Module):
    """Collects the losses of its terms.

    Args:
        terms: see `LossTerm`.
        class_weight: weight of every class loss that no term weighs otherwise.
        proposal_class_weight: the same for the encoder's class losses; None for no difference.
        class_loss: see `losses.supervision`.
        iou_eps: see `losses.paired_giou`.
    """

    def __init__(
        self,
        terms: Sequence[LossTerm],
        class_weight: float,
        proposal_class_weight: float | None = None,
        class_loss: str = "focal",
        iou_eps: float = 0.0,
    ) -> None:
        super().__init__()
        self.terms = nn.ModuleList(terms)
        self.weights: dict[str, float] = {"loss_ce": class_weight, **BOX_WEIGHTS}
        if proposal_class_weight is not None:
            self.weights["loss_ce_enc"] = proposal_class_weight
        for term in terms:
            self.weights |= term.weights
        self.supervision = supervision(class_loss, iou_eps)

    def forward(self, out: DetectorOutput, targets: list[Target], num_boxes: float | None = None) -> Losses:
        """Unweighted losses by their official names (`loss_ce`, `loss_bbox_3`, `loss_giou_enc`, ...).

        Args:
            out: a forward with `outputs="all"`.
            targets: for each image `labels` (n,) int64 and `boxes` (n, 4) cx, cy, w, h in [0, 1]; n may be 0.
            num_boxes: objects of a micro-batch, mean over those of the step; None where this batch is all of it.
        """
        if num_boxes is None:
            num_boxes = count_boxes(targets)
        losses: Losses = {}
        for term in self.terms:
            losses |= term(out, targets, num_boxes, self.supervision)
        return losses

    def weight(self, name: str) -> float:
        """The weight of a loss, by the longest stem of its name."""
        return self.weights[max((stem for stem in self.weights if name.startswith(stem)), key=len)]

    def total(self, losses: Losses) -> Tensor:
        """The weighted sum, a scalar, which training minimises."""
        return torch.stack([self.weight(name) * loss for name, loss in losses.items()]).sum()


def count_boxes(targets: list[Target]) -> float:
    """Objects in the batch."""
    return float(sum(len(target["labels"]) for target in targets))


class DecoderLoss(LossTerm):
    """Class, L1 and GIoU loss of every decoder layer, each matched on its own (DETR)."""

    def forward(self, out: DetectorOutput, targets: list[Target], num_boxes: float, supervision: Supervision) -> Losses:
        """The last layer carries no suffix, layer i before it `_i`."""
        losses = matched_losses(supervision.decoder, out.layers[-1], targets, num_boxes, "")
        for index, layer in enumerate(out.layers[:-1]):
            losses |= matched_losses(supervision.decoder, layer, targets, num_boxes, f"_{index}")
        return losses
