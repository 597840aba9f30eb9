"""MS-DETR's mixed supervision (Zhao et al., CVPR 2024): in training, each decoder layer predicts twice.

One query answers for an object in the first prediction, several in the second one, which reads the queries between the
layer's two attentions. The decoder runs once, and inference knows nothing of this. Shapes: L layers, B images, Q
queries, T objects of all images, R queries that answer for an object.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from detrbench.models.assignment import assign, matching_scores
from detrbench.models.contracts import AuxiliaryDecoder, Decoder, Heads
from detrbench.models.criterion import LossTerm, decoder_suffixes, layer_losses
from detrbench.models.dimensions import Dimensions
from detrbench.models.heads import predictions
from detrbench.models.layers import FeedForward, class_head
from detrbench.models.losses import Losses, Supervision
from detrbench.models.matcher import Matched, stacked
from detrbench.models.targets import Objects
from detrbench.models.tokens import Decoded, Encoded, Outputs, Prediction, Queries, Tokens

if TYPE_CHECKING:
    from detrbench.models.detector import DetectorOutput

# One of so many queries of an image counts for an object at most.
QUERIES_OF_POSITIVE = 4


class MixedSupervision(nn.Module, AuxiliaryDecoder):
    """Reads the queries of each decoder layer a second time.

    Noised queries and those of a one-to-many branch have their own supervision, and none of this one.

    Args:
        dimensions: widths, classes and the number of decoder layers.
        second_prediction: "inner" reads the queries between the layer's attentions through its own heads, "inner_ffn"
            with a feed-forward network in front of them, "output" the layer's output, by class heads of this part and
            the layer's box heads. In the paper's Figure 4 these are c and b, with self-attention first d and a.
        one_to_many_threshold: least score of a query that answers for an object beside the best one.
        one_to_many_top: most queries that answer for one object.
        one_to_many_class_weight: of the class losses; those of boxes weigh what they always do.
    """

    def __init__(
        self,
        dimensions: Dimensions,
        second_prediction: str,
        one_to_many_threshold: float,
        one_to_many_top: int,
        one_to_many_class_weight: float,
    ) -> None:
        super().__init__()
        self.reads = second_prediction
        self.threshold, self.top, self.class_weight = one_to_many_threshold, one_to_many_top, one_to_many_class_weight
        layers = range(dimensions.num_decoder_layers)
        if second_prediction == "inner_ffn":
            self.feed_forward = nn.ModuleList(FeedForward(dimensions) for _ in layers)
        if second_prediction == "output":
            self.class_embed = nn.ModuleList(class_head(dimensions) for _ in layers)

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
        """Of each layer that was returned, by the reference of its first prediction."""
        if self.reads == "output":
            return predictions(decoded, partial(self._by_own_classes, heads))
        inner = replace(decoded, states=decoded.inner)
        return predictions(inner, heads if self.reads == "inner" else partial(self._behind_network, heads))

    def _by_own_classes(self, heads: Heads, layer: int, state: Tensor, reference_points: Tensor) -> Prediction:
        return Prediction(self.class_embed[layer](state), heads.boxes(layer, state, reference_points))

    def _behind_network(self, heads: Heads, layer: int, state: Tensor, reference_points: Tensor) -> Prediction:
        return heads(layer, self.feed_forward[layer](state), reference_points)

    def loss_terms(self) -> list[LossTerm]:
        """Several queries for each object."""
        return [MixedLoss(self.threshold, self.top, self.class_weight)]


class MixedLoss(LossTerm):
    """The losses of the second predictions, one-to-many in every layer.

    Args:
        threshold: see `assignment.assign`.
        top: see there.
        class_weight: of the class losses.
    """

    def __init__(self, threshold: float, top: int, class_weight: float) -> None:
        super().__init__()
        self.threshold, self.top = threshold, top
        self.weights = {"loss_ce_o2m": class_weight}

    def forward(
        self,
        out: DetectorOutput,
        objects: Objects,
        matched: Matched | None,
        num_boxes: float,
        supervision: Supervision,
    ) -> Losses:
        """Losses with the suffix `_o2m`, and `_<i>_o2m` for layer i before the last; none in inference."""
        if out.auxiliary is None:
            return {}
        answers = self.answers(stacked(out.auxiliary.layers), objects)
        suffixes = [f"{suffix}_o2m" for suffix in decoder_suffixes(len(out.auxiliary.layers))]
        return layer_losses(supervision.one_to_many, answers, num_boxes, suffixes)

    def answers(self, prediction: Prediction, objects: Objects) -> Matched:
        """Who answers for what, by boxes and classes of layers of predictions."""
        scores = matching_scores(prediction.boxes, prediction.logits, objects)
        most = prediction.boxes.shape[2] // QUERIES_OF_POSITIVE
        query, present = assign(scores, objects, self.threshold, self.top, most)
        return Matched(prediction, objects, query, present, best_for_query(scores, objects, query, present))


@torch.no_grad()
def best_for_query(scores: Tensor, objects: Objects, query: Tensor, present: Tensor) -> Tensor:
    """Of the objects that a query answers for, the one that it fits best: it learns that one's label alone.

    Args:
        scores: (L, T, Q) of `matching_scores`.
        objects: T of them.
        query: (L, T, R) of `assign`.
        present: (L, T, R) bool of `assign`.

    Returns:
        (L, T, R) bool, none where not present.
    """
    score = scores.gather(2, query).masked_fill(~present, -1.0)
    layers, _, queries = scores.shape
    place = (objects.image[:, None] * queries + query).flatten(1)  # (L, T * R) of the batch's queries
    best = score.new_full((layers, len(objects.counts) * queries), -1.0)
    best = best.scatter_reduce(1, place, score.flatten(1), "amax")
    return present & (score == best.gather(1, place).view_as(score))
