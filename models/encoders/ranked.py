"""Encoders that update the best tokens of one ranking, fewer from layer to layer: Focus-DETR and Salience-DETR."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest
from typing import NamedTuple

from torch import Tensor, nn

from detrbench.models.encoders.sparse import write_back
from detrbench.models.proposals import ProposalHead
from detrbench.models.tokens import Tokens, gather_tokens


class Ranking(NamedTuple):
    """Which tokens are updated.

    Attributes:
        indices: (B, n), best first; behind an image's own tokens there may be surplus ones, which larger images need.
        scores: (B, n) of these tokens.
        own: how many of them each image updates at most.
        kept: how many each layer takes, of the largest image.
    """

    indices: Tensor
    scores: Tensor
    own: list[int]
    kept: list[int]


def update_ranked(
    ranking: Ranking,
    layers: Iterable[nn.Module],
    dual_attention: Iterable[nn.Module],
    tokens: Tokens,
    proposal_head: ProposalHead,
) -> tuple[Tensor, list[list[Tensor]]]:
    """Run the layers, each on the first tokens of the ranking.

    Every layer samples the neck's features, not the tokens that the layers before have updated, as in the official
    code of both papers.

    Args:
        ranking: of the tokens.
        layers: `EncoderLayer`s.
        dual_attention: a `DualAttention` for each of them, or none at all.
        tokens: the feature pyramid.
        proposal_head: whose class head the dual attention reads.

    Returns:
        (B, S, C) memory, where a token that no layer updates is as it came, and the tokens that each layer updates of
        each image.
    """
    positions = gather_tokens(tokens.positions, ranking.indices)
    reference_points = gather_tokens(tokens.encoder_reference_points().flatten(2), ranking.indices)
    reference_points = reference_points.unflatten(-1, (len(tokens.sizes), 2))
    memory = tokens.features
    updated_tokens = []
    for layer, attend, count in zip_longest(layers, dual_attention, ranking.kept):
        indices, position = ranking.indices[:, :count], positions[:, :count]
        query = gather_tokens(memory, indices)
        if attend is not None:
            query = attend(query, position, ranking.scores[:, :count], proposal_head)
        query = layer(query, position, reference_points[:, :count], tokens.features, tokens)
        counts = [min(count, most) for most in ranking.own]
        memory = write_back(memory, query, indices, counts)
        updated_tokens.append([row[:number] for row, number in zip(indices, counts)])
    return memory, updated_tokens
