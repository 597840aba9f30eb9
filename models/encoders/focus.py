"""Focus-DETR's encoder (Zheng et al., ICCV 2023, sections 3.2-3.3).

Tokens are scored as foreground level by level, each level's scores modulating the next one's tokens; fewer and fewer of
the best tokens are updated from layer to layer, and the most promising of those also attend to each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrbench.models.contracts import Encoder
from detrbench.models.criterion import LossTerm
from detrbench.models.dimensions import Dimensions
from detrbench.models.encoders.dual_attention import DualAttention
from detrbench.models.encoders.ranked import Ranking, update_ranked
from detrbench.models.encoders.sparse import ScoreNetwork, keep_counts
from detrbench.models.foreground import ForegroundLoss
from detrbench.models.layers import EncoderLayer
from detrbench.models.proposals import ProposalHead
from detrbench.models.tokens import Encoded, Outputs, Tokens


class FocusEncoder(nn.Module, Encoder):
    """Updates a share of the tokens that falls from layer to layer.

    Images of a batch share the cascade of the largest one, from their own count in the first layer on, as in the
    official code. See `update_ranked` for what the layers sample.

    Args:
        dimensions: widths and the number of layers.
        keep_ratios: this and the others as in the catalogue of parts.
        modulation: how levels modulate each other.
        foreground_supervision: whether the scores are trained with boxes.
        scale_intervals: see `foreground.foreground_labels`.
        dual_attention: see `DualAttention`, with the two below.
        fine_tokens: see `ObjectTokens`.
        category_score: see `ObjectTokens`.
    """

    needs_projection = True

    def __init__(
        self,
        dimensions: Dimensions,
        keep_ratios: Sequence[float],
        modulation: str,
        foreground_supervision: bool,
        scale_intervals: Sequence[Sequence[float]],
        dual_attention: bool,
        fine_tokens: int,
        category_score: bool,
    ) -> None:
        super().__init__()
        depth = dimensions.num_encoder_layers
        self.keep_ratios = tuple(keep_ratios)
        self.supervised_intervals = scale_intervals if foreground_supervision else None
        self.selector = ForegroundSelector(dimensions, modulation)
        self.layers = nn.ModuleList(EncoderLayer(dimensions) for _ in range(depth))
        self.dual_attention = nn.ModuleList(
            DualAttention(dimensions, fine_tokens, category_score) for _ in range(depth if dual_attention else 0)
        )
        # Only the class logits of the dual attention read the proposal head's predictions.
        self.needs_prediction = dual_attention and category_score

    def forward(self, tokens: Tokens, proposal_head: ProposalHead | None, outputs: Outputs) -> Encoded:
        """Encode the kept tokens; a token that no layer keeps leaves as it came.

        Args:
            tokens: the feature pyramid.
            proposal_head: its projection feeds the selector, its class head the dual attention.
            outputs: the same for both.
        """
        assert proposal_head is not None
        foreground, scores = self.selector.of(tokens, proposal_head)
        own, kept = cascade(tokens.num_valid, self.keep_ratios)
        best = scores.topk(max(kept), dim=1)
        ranking = Ranking(best.indices, best.values, own, kept)
        memory, kept_tokens = update_ranked(ranking, self.layers, self.dual_attention, tokens, proposal_head)
        return Encoded(memory, kept_tokens, scores, foreground=foreground)

    def loss_terms(self) -> list[LossTerm]:
        """The selector learns from the objects' boxes."""
        return [] if self.supervised_intervals is None else [ForegroundLoss(self.supervised_intervals)]


class ForegroundSelector(nn.Module):
    """One score a token; the scores of one level modulate the tokens of the next."""

    def __init__(self, dimensions: Dimensions, modulation: str) -> None:
        super().__init__()
        self.modulation = modulation
        self.score_network = ScoreNetwork(dimensions.hidden_dim)
        if modulation != "none":
            # In the order of the steps: with "top_down" the first one belongs to the second coarsest level.
            self.alpha = nn.Parameter(torch.empty(dimensions.num_levels - 1).uniform_(-0.3, 0.3))

    def of(self, tokens: Tokens, proposal_head: ProposalHead) -> tuple[Tensor, Tensor]:
        """(B, S) scores of tokens as the proposal head projects them; (B, S), the same with the least on padding."""
        features = proposal_head.project(tokens.features + tokens.positions, tokens.proposals()[1])
        found: Tensor = self(features, tokens.sizes)
        return found, torch.where(tokens.padding, found.min(), found) if tokens.padded else found

    def forward(self, features: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
        """(B, S, C) features of levels of the given sizes -> (B, S), without sigmoid."""
        levels = features.split([height * width for height, width in sizes], dim=1)
        if self.modulation == "none":
            return torch.cat([self.score_network(level) for level in levels], 1)
        order = range(len(sizes)) if self.modulation == "bottom_up" else range(len(sizes) - 1, -1, -1)
        scores: dict[int, Tensor] = {}
        before: int | None = None
        for step, index in enumerate(order):
            level = levels[index]
            if before is not None:
                image = scores[before].unflatten(1, sizes[before])[:, None]  # (B, 1, H, W)
                resized = F.interpolate(image, sizes[index], mode="bilinear", align_corners=True).flatten(2)
                level = level + level * resized.transpose(1, 2) * self.alpha[step - 1]
            scores[index] = self.score_network(level)
            before = index
        return torch.cat([scores[index] for index in range(len(sizes))], 1)


def cascade(num_valid: list[int], keep_ratios: Sequence[float]) -> tuple[list[int], list[int]]:
    """How many tokens are updated: at most by each image, and by each layer for the largest image.

    Counts are rounded in float32, as in the official code, where a layer's share is relative to the largest one.
    """
    largest = max(keep_ratios)
    own = keep_counts(num_valid, largest)
    return own, [max(int(np.float32(ratio / largest) * np.float32(max(own))), 1) for ratio in keep_ratios]
