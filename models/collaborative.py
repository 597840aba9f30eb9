"""DAC-DETR's C-decoder (Hu et al., NeurIPS 2023): in training, the decoder runs once more without self-attention.

Self-attention spreads the queries out, so that one of them answers for an object; cross-attention gathers them around
it. Without the first, several queries can answer for each object, which trains the second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from detrbench.models.assignment import assign, matching_scores
from detrbench.models.contracts import AuxiliaryDecoder, Decoder, Heads
from detrbench.models.criterion import LossTerm, decoder_suffixes, layer_losses
from detrbench.models.denoising import noised_losses
from detrbench.models.dimensions import Dimensions
from detrbench.models.heads import predictions
from detrbench.models.losses import Losses, Supervision
from detrbench.models.matcher import Matched, stacked
from detrbench.models.targets import Objects
from detrbench.models.tokens import Decoded, Encoded, Outputs, Prediction, Queries, Tokens

if TYPE_CHECKING:
    from detrbench.models.detector import DetectorOutput

# An image trains at most so many queries, drawn at random (a quarter of 300 in the official code).
MOST_POSITIVES = 75
# The official code divides by three times the objects, however many queries answer for each.
BALANCE = 3


class NoAuxiliaryDecoder(nn.Module, AuxiliaryDecoder):
    """Nothing runs beside the decoder."""

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()

    def forward(
        self,
        decoder: Decoder,
        queries: Queries,
        encoded: Encoded,
        tokens: Tokens,
        heads: Heads,
        outputs: Outputs,
        decoded: Decoded,
    ) -> None:
        """Nothing."""


class CollaborativeDecoder(nn.Module, AuxiliaryDecoder):
    """The C-decoder: the same layers and heads, with boxes of its own, of which inference keeps nothing.

    Only the first layer has self-attention, since the official C-decoder starts behind that of the O-decoder; so both
    agree on the first layer.

    Args:
        dimensions: unused; every part takes it.
        one_to_many_threshold: least score of a query that answers for an object beside the best one.
        one_to_many_top: most queries that answer for one object.
    """

    def __init__(self, dimensions: Dimensions, one_to_many_threshold: float, one_to_many_top: int) -> None:
        super().__init__()
        self.threshold, self.top = one_to_many_threshold, one_to_many_top

    def forward(
        self,
        decoder: Decoder,
        queries: Queries,
        encoded: Encoded,
        tokens: Tokens,
        heads: Heads,
        outputs: Outputs,
        decoded: Decoded,
    ) -> list[Prediction]:
        """Decode the queries once more; arguments as for the decoder."""
        return predictions(decoder(queries, encoded, tokens, heads, outputs, mixing_layers=1), heads)

    def loss_terms(self) -> list[LossTerm]:
        """Several queries for each object."""
        return [CollaborativeLoss(self.threshold, self.top)]


class CollaborativeLoss(LossTerm):
    """The losses of the C-decoder: one-to-many in every layer, and those of noised queries as in the O-decoder.

    Args:
        threshold: see `assign`.
        top: see `assign`.
    """

    def __init__(self, threshold: float, top: int) -> None:
        super().__init__()
        self.threshold, self.top = threshold, top

    def forward(
        self,
        out: DetectorOutput,
        objects: Objects,
        matched: Matched | None,
        num_boxes: float,
        supervision: Supervision,
    ) -> Losses:
        """Losses with the suffix `_cdecoder`, and `_<i>_cdecoder` for layer i before the last; none in inference."""
        branch = out.auxiliary
        if branch is None:
            return {}
        answers = self.answers(stacked(out.layers), stacked(branch.layers), objects)
        suffixes = decoder_suffixes(len(branch.layers))
        losses = layer_losses(supervision.one_to_many, answers, BALANCE * num_boxes, suffixes)
        losses |= noised_losses(supervision.decoder, branch.noised, out.queries, objects, num_boxes)
        return {f"{name}_cdecoder": loss for name, loss in losses.items()}

    def answers(self, first: Prediction, second: Prediction, objects: Objects) -> Matched:
        """Who answers for what in the C-decoder, by the O-decoder's boxes and its own classes, as officially."""
        scores = matching_scores(first.boxes, second.logits, objects)
        return Matched(second, objects, *assign(scores, objects, self.threshold, self.top, MOST_POSITIVES))
