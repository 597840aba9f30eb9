"""The training objective: a sum of terms, each brought by the part that needs it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from detrbench.models.losses import Losses, MatchedLosses, Supervision, supervision
from detrbench.models.matcher import Matched, Unmatched, match, stacked
from detrbench.models.precision import in_full
from detrbench.models.targets import Objects, Target

if TYPE_CHECKING:
    from detrbench.models.detector import DetectorOutput

BOX_WEIGHTS = {"loss_bbox": 5.0, "loss_giou": 2.0}


class LossTerm(nn.Module):
    """One term of the objective.

    A term first says which predictions are to be matched to the objects; those of all terms are matched together, and
    each is then called with its own: `term(out, objects, matched, num_boxes, supervision)` returns named losses.
    `num_boxes` is `Criterion.forward`'s: it may be below 1, which no loss is divided by.

    Attributes:
        weights: by the stem of a loss's name (its layer left out), where the criterion has none for it.
    """

    weights: Mapping[str, float] = MappingProxyType({})

    def unmatched(self, out: DetectorOutput, objects: Objects) -> Unmatched | None:
        """What is to be matched; None where nothing is, and then `matched` is None too."""
        return None


class MatchedTerm(LossTerm):
    """A term that learns from matched predictions alone, and from all of them in one way.

    Attributes:
        learns_by: which of the losses of `Supervision`.
    """

    learns_by: ClassVar[Literal["encoder", "decoder"]] = "decoder"

    def forward(
        self,
        out: DetectorOutput,
        objects: Objects,
        matched: Matched | None,
        num_boxes: float,
        supervision: Supervision,
    ) -> Losses:
        """Losses with a suffix for each layer; none where nothing was to be matched."""
        if matched is None:
            return {}
        losses: MatchedLosses = getattr(supervision, self.learns_by)
        return layer_losses(losses, matched, num_boxes, self.suffixes(len(matched.query)))

    def suffixes(self, layers: int) -> list[str]:
        """What the losses of each layer are told apart by: `_i` for layer i, nothing for the last one."""
        return decoder_suffixes(layers)


def layer_losses(losses: MatchedLosses, matched: Matched, num_boxes: float, suffixes: Sequence[str]) -> Losses:
    """The losses of layers of predictions, named with a suffix for each layer."""
    found = losses(matched, max(num_boxes, 1.0))
    return {name + suffix: loss for name, layers in found.items() for suffix, loss in zip(suffixes, layers.unbind())}


def decoder_suffixes(layers: int) -> list[str]:
    """`_i` for layer i, and nothing for the last one."""
    return [*(f"_{index}" for index in range(layers - 1)), ""]


class Criterion(nn.Module):
    """Collects the losses of its terms.

    Args:
        terms: see `LossTerm`.
        class_weight: weight of every class loss that no term weighs otherwise.
        proposal_class_weight: the same for the encoder's class losses; None for no difference.
        class_loss: see `losses.supervision`.
        iou_eps: see `boxes.giou`.
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

        They are in float32 at least, under autocast too. Waits for the device once, for what is to be matched.

        Args:
            out: a forward with `outputs="all"`.
            targets: for each image `labels` (n,) int64 and `boxes` (n, 4) cx, cy, w, h in [0, 1]; n may be 0.
            num_boxes: objects of a micro-batch, mean over those of the step; None where this batch is all of it.
        """
        if num_boxes is None:
            num_boxes = count_boxes(targets)
        objects = Objects.of(targets, in_full(out.pred_boxes))
        terms = cast("Sequence[LossTerm]", self.terms)
        asked = [term.unmatched(out, objects) for term in terms]
        answers = iter(match([each for each in asked if each is not None]))
        losses: Losses = {}
        for term, each in zip(terms, asked):
            matched = None if each is None else next(answers)
            losses |= term(out, objects, matched, num_boxes, self.supervision)
        return losses

    def weight(self, name: str) -> float:
        """The weight of a loss, by the longest stem of its name without the number of its layer."""
        name = re.sub(r"_\d+", "", name)
        return self.weights[max((stem for stem in self.weights if name.startswith(stem)), key=len)]

    def total(self, losses: Losses) -> Tensor:
        """The weighted sum, a scalar, which training minimises."""
        return torch.stack([self.weight(name) * loss for name, loss in losses.items()]).sum()


def count_boxes(targets: list[Target]) -> float:
    """Objects in the batch."""
    return float(sum(len(target["labels"]) for target in targets))


class DecoderLoss(MatchedTerm):
    """Class, L1 and GIoU loss of every decoder layer, each matched on its own (DETR)."""

    def unmatched(self, out: DetectorOutput, objects: Objects) -> Unmatched:
        """All layers."""
        return Unmatched(stacked(out.layers), objects)
