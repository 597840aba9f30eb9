"""One-to-many supervision: in training, further queries of which several answer for each object (H-DETR)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from detrbench.models.contracts import OneToMany
from detrbench.models.criterion import LossTerm, MatchedTerm, decoder_suffixes
from detrbench.models.dimensions import Dimensions
from detrbench.models.losses import Losses, Supervision
from detrbench.models.matcher import Matched, Unmatched, stacked
from detrbench.models.targets import Objects
from detrbench.models.tokens import Queries

if TYPE_CHECKING:
    from detrbench.models.detector import DetectorOutput


class NoOneToMany(nn.Module, OneToMany):
    """Leaves the queries as they are."""

    further_queries = 0

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()

    def forward(self, queries: Queries) -> Queries:
        """The same queries."""
        return queries


class HybridQueries(nn.Module, OneToMany):
    """H-DETR's hybrid branch (Jia et al., CVPR 2023, section 3.2), of which inference keeps nothing.

    The queries that rank behind the ordinary ones pass through the same decoder and heads; neither group sees the
    other.

    Args:
        dimensions: how many queries are ordinary.
        one_to_many_queries: how many stand behind them.
        one_to_many_repeats: how many of them answer for each object.
        one_to_many_weight: weight of their losses beside the others'.
    """

    def __init__(
        self,
        dimensions: Dimensions,
        one_to_many_queries: int,
        one_to_many_repeats: int,
        one_to_many_weight: float,
    ) -> None:
        super().__init__()
        self.num_queries, self.further_queries = dimensions.num_queries, one_to_many_queries
        self.repeats, self.weight = one_to_many_repeats, one_to_many_weight

    def forward(self, queries: Queries) -> Queries:
        """Part the groups; small images may have no tokens left for the second one."""
        total = queries.content.shape[1]
        further = torch.arange(total, device=queries.content.device) >= self.num_queries
        blocked = further[:, None] != further[None]
        return replace(queries, blocked=blocked, one_to_many=max(total - self.num_queries, 0))

    def loss_terms(self) -> list[LossTerm]:
        """The losses of the second group."""
        return [RepeatedLoss(self.repeats, self.weight)]


class RepeatedLoss(MatchedTerm):
    """The decoder's losses with every object there several times, each to be matched by another query.

    Its losses carry the suffix `_one2many`, and `_<i>_one2many` for layer i before the last.

    Args:
        repeats: how often each object is there.
        weight: factor on the losses.
    """

    def __init__(self, repeats: int, weight: float) -> None:
        super().__init__()
        self.repeats, self.weight = repeats, weight

    def unmatched(self, out: DetectorOutput, objects: Objects) -> Unmatched | None:
        """The second group in all layers; None in inference."""
        return Unmatched(stacked(out.one_to_many), objects.repeated(self.repeats)) if out.one_to_many else None

    def forward(
        self,
        out: DetectorOutput,
        objects: Objects,
        matched: Matched | None,
        num_boxes: float,
        supervision: Supervision,
    ) -> Losses:
        """As of any matched term, over the repeats and weighed."""
        losses = super().forward(out, objects, matched, self.repeats * num_boxes, supervision)
        return {name: self.weight * loss for name, loss in losses.items()}

    def suffixes(self, layers: int) -> list[str]:
        """Of decoder layers."""
        return [f"{suffix}_one2many" for suffix in decoder_suffixes(layers)]
