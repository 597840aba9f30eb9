"""Sparse DETR's encoder (Roh et al., ICLR 2022, sections 3.2-3.4).

A score network picks the salient tokens of each image; only these are queries of the encoder, while all tokens stay
keys. What is salient is learned from the decoder's attention (the paper's choice), from a detection head of its own, or
not at all: the two criteria that the paper compares it with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detrbench.models.auxiliary import DamLoss, EncoderAuxiliaryLoss, ObjectnessLoss
from detrbench.models.contracts import Encoder
from detrbench.models.criterion import LossTerm
from detrbench.models.dimensions import Dimensions
from detrbench.models.encoders.dual_attention import FINE_TOKENS, DualAttention
from detrbench.models.layers import EncoderLayer, box_head, class_head
from detrbench.models.proposals import ProposalHead
from detrbench.models.tokens import Encoded, Outputs, Prediction, Tokens, gather_tokens
from detrbench.models.transfer import upload


class SparseEncoder(nn.Module, Encoder):
    """Updates the best-scored share of an image's tokens.

    Args:
        dimensions: widths and the number of layers.
        score_network: scores the tokens, and says what it learns from.
        keep_ratio: share of the tokens that are no padding; every image keeps one more than this, rounded down.
        encoder_auxiliary: predict boxes from the kept tokens after each layer but the last.
        dual_attention: Focus-DETR's second attention in each layer, in front of the sampled one (its Table 11).
    """

    needs_projection = True

    def __init__(
        self,
        dimensions: Dimensions,
        score_network: AttentionScore | ObjectnessScore | RandomScore,
        keep_ratio: float,
        encoder_auxiliary: bool,
        dual_attention: bool,
    ) -> None:
        super().__init__()
        self.keep_ratio = keep_ratio
        self.score_network = score_network
        self.layers = nn.ModuleList(EncoderLayer(dimensions) for _ in range(dimensions.num_encoder_layers))
        heads = dimensions.num_encoder_layers - 1 if encoder_auxiliary else 0
        self.auxiliary_heads = nn.ModuleList(AuxiliaryHead(dimensions) for _ in range(heads))
        dual = dimensions.num_encoder_layers if dual_attention else 0
        self.dual_attention = nn.ModuleList(DualAttention(dimensions, FINE_TOKENS, True) for _ in range(dual))
        self.needs_prediction = dual_attention

    def forward(self, tokens: Tokens, proposal_head: ProposalHead | None, outputs: Outputs) -> Encoded:
        """Encode the kept tokens; the others leave as they came, without position.

        Args:
            tokens: the feature pyramid.
            proposal_head: its projection feeds the score network.
            outputs: "all" runs the auxiliary heads too, and whatever else the score network learns from.
        """
        assert proposal_head is not None
        proposals, excluded = tokens.proposals()
        projected = proposal_head.project(tokens.features + tokens.positions, excluded)
        scores, objectness = self.score_network.score(projected, proposals, outputs)
        counts = keep_counts(tokens.num_valid, self.keep_ratio)
        # Padding comes last even where the official fill, the batch's minimum, would tie with a real token.
        ranking = scores.masked_fill(tokens.padding, float("-inf")) if tokens.padded else scores
        kept = ranking.topk(max(counts), dim=1).indices  # (B, n)
        if tokens.padded:
            scores = torch.where(tokens.padding, scores.min(), scores)

        position = gather_tokens(tokens.positions, kept)
        reference_points = gather_tokens(tokens.encoder_reference_points().flatten(2), kept)
        reference_points = reference_points.unflatten(-1, (len(tokens.sizes), 2))
        kept_proposals = gather_tokens(proposals, kept)
        memory = tokens.features
        query = gather_tokens(memory, kept)
        predictions = []
        kept_scores = scores.gather(1, kept)
        for index, layer in enumerate(self.layers):
            if self.dual_attention:
                query = self.dual_attention[index](query, position, kept_scores, proposal_head)
            query = layer(query, position, reference_points, memory, tokens)
            memory = write_back(memory, query, kept, counts)
            if outputs == "all" and index < len(self.auxiliary_heads):
                # Surplus tokens of smaller images are supervised too, as in the official code.
                predictions.append(self.auxiliary_heads[index](query, kept_proposals))
        own = [indices[:count] for indices, count in zip(kept, counts)]
        return Encoded(memory, [own] * len(self.layers), scores, predictions, objectness=objectness)

    def loss_terms(self) -> list[LossTerm]:
        """The score network's own, and the objects for the auxiliary heads."""
        terms = self.score_network.loss_terms()
        return [*terms, EncoderAuxiliaryLoss()] if len(self.auxiliary_heads) else terms


def by_attention(dimensions: Dimensions, **options: Any) -> SparseEncoder:
    """Salient is what the decoder attends to; options as for `SparseEncoder`."""
    return SparseEncoder(dimensions, AttentionScore(dimensions.hidden_dim), **options)


def by_objectness(dimensions: Dimensions, **options: Any) -> SparseEncoder:
    """Salient is what looks like an object before the encoder; options as for `SparseEncoder`."""
    return SparseEncoder(dimensions, ObjectnessScore(dimensions), **options)


def by_chance(dimensions: Dimensions, **options: Any) -> SparseEncoder:
    """Tokens are drawn; options as for `SparseEncoder`."""
    return SparseEncoder(dimensions, RandomScore(), **options)


class ScoreNetwork(nn.Module):
    """One score a token, from its own features and the mean over all tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.local = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.joint = nn.Sequential(
            nn.Linear(width, width // 2),
            nn.GELU(),
            nn.Linear(width // 2, width // 4),
            nn.GELU(),
            nn.Linear(width // 4, 1),
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, features: Tensor) -> Tensor:
        """(B, S, C) -> (B, S)."""
        own, shared = self.local(features).chunk(2, -1)
        shared = shared.mean(1, keepdim=True).expand(-1, own.shape[1], -1)
        return self.joint(torch.cat([own, shared], -1))[..., 0]


class AttentionScore(ScoreNetwork):
    """Learns to name the tokens that the decoder attends to most (section 3.3, "DAM")."""

    def score(self, features: Tensor, proposals: Tensor, outputs: Outputs) -> tuple[Tensor, None]:
        """(B, S, C) -> (B, S); the attention that it learns from is the decoder's, so there is nothing to predict."""
        return self(features), None

    def loss_terms(self) -> list[LossTerm]:
        """The decoder's attention map."""
        return [DamLoss()]


class AuxiliaryHead(nn.Module):
    """Classes and boxes of kept tokens, relative to each token's proposal."""

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        self.class_embed = class_head(dimensions)
        self.box_embed = box_head(dimensions)

    def forward(self, features: Tensor, proposals: Tensor) -> Prediction:
        """(B, n, C) features, (B, n, 4) proposal logits -> prediction for each of the n tokens."""
        return Prediction(self.class_embed(features), (self.box_embed(features) + proposals).sigmoid())


class ObjectnessScore(AuxiliaryHead):
    """A detection head in front of the encoder, whose class scores rank the tokens (section 3.3, "Objectness Score").

    The paper says: a head like the decoder's, on the backbone's features, with a Hungarian loss, and the tokens of the
    highest class scores are kept. The published code does not have it, so the rest is ours: a token's score is its best
    class logit, the head reads the same projection as `AttentionScore` (features with positions), boxes are relative to
    each token's proposal as in all heads of the encoder, and every token takes part in the matching.
    """

    def score(self, features: Tensor, proposals: Tensor, outputs: Outputs) -> tuple[Tensor, Prediction | None]:
        """Rank by the best class; boxes only where they are asked for, since no ranking reads them.

        Args:
            features: (B, S, C).
            proposals: (B, S, 4) logits.
            outputs: "all" predicts boxes too.

        Returns:
            (B, S) scores, and what to supervise.
        """
        if outputs == "final":
            return self.class_embed(features).amax(-1), None
        prediction = self(features, proposals)
        return prediction.logits.amax(-1), prediction

    def loss_terms(self) -> list[LossTerm]:
        """The objects."""
        return [ObjectnessLoss()]


class RandomScore(nn.Module):
    """Tokens drawn at random (the paper's Figure 4): what a choice is worth that knows nothing of the image.

    The paper does not say when they are drawn. Here: anew for each image and step of a training, from the generator
    that training seeds; in inference always alike for one size of the batch, so that a figure can be taken again.
    """

    def score(self, features: Tensor, proposals: Tensor, outputs: Outputs) -> tuple[Tensor, None]:
        """(B, S, C) -> (B, S), uniform in [0, 1); there is nothing to predict."""
        batch, total = features.shape[:2]
        if self.training:
            return upload(torch.rand(batch, total), features.device), None
        drawn = torch.rand(total, generator=torch.Generator().manual_seed(0))
        return upload(drawn, features.device).expand(batch, total), None

    def loss_terms(self) -> list[LossTerm]:
        """None: nothing is learned."""
        return []


def keep_counts(num_valid: list[int], keep_ratio: float) -> list[int]:
    """How many tokens each image keeps: one more than the share, rounded down in float32 as the official code does."""
    return [min(int(np.float32(count) * np.float32(keep_ratio)) + 1, count) for count in num_valid]


def write_back(memory: Tensor, updated: Tensor, indices: Tensor, counts: list[int]) -> Tensor:
    """Put each image's first `counts` updated tokens where they came from; the surplus of smaller images is dropped.

    Args:
        memory: (B, S, C).
        updated: (B, n, C).
        indices: (B, n) where they came from.
        counts: of each image, at most n.

    Returns:
        (B, S, C).
    """
    most = updated.shape[1]
    if min(counts) < most:
        own = upload(torch.tensor(counts), memory.device)
        surplus = torch.arange(most, device=memory.device) >= own[:, None]
        updated = torch.where(surplus[..., None], gather_tokens(memory, indices), updated)
    return memory.scatter(1, indices[..., None].expand_as(updated), updated)
