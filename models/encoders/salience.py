"""Salience-DETR's encoder (Hou et al., CVPR 2024, arXiv 2403.16131).

Tokens are scored as in Focus-DETR, but each level keeps a share of its own, and scores learn how near a token is to the
middle of an object, whatever the object's size. What the last layer leaves out gets a learned background embedding, and
the levels are fused behind the layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from detrbench.errors import UsageError
from detrbench.models.contracts import Encoder
from detrbench.models.criterion import LossTerm
from detrbench.models.dimensions import Dimensions
from detrbench.models.encoders.dual_attention import DualAttention
from detrbench.models.encoders.focus import ForegroundSelector
from detrbench.models.encoders.ranked import Ranking, update_ranked
from detrbench.models.encoders.token_fusion import TokenFusion
from detrbench.models.layers import EncoderLayer
from detrbench.models.proposals import ProposalHead
from detrbench.models.salience import SalienceLoss
from detrbench.models.tokens import Encoded, Outputs, Tokens


class SalienceEncoder(nn.Module, Encoder):
    """Updates a share of each level's tokens, which falls from layer to layer.

    Args:
        dimensions: widths and the number of layers.
        level_ratios: this and the others as in the catalogue of parts.
        layer_ratios: of the tokens that the levels keep.
        scale_intervals: see `salience.salience`.
        fine_tokens: see `ObjectTokens`.
        background_embedding: whether there is one.
        background_cells: see `BackgroundEmbedding`.
        token_fusion: whether there is one.
    """

    # The selector reads the projection, the dual attention the class head behind it.
    needs_projection = needs_prediction = True

    def __init__(
        self,
        dimensions: Dimensions,
        level_ratios: Sequence[float],
        layer_ratios: Sequence[float],
        scale_intervals: Sequence[Sequence[float]],
        fine_tokens: int,
        background_embedding: bool,
        background_cells: int,
        token_fusion: bool,
    ) -> None:
        super().__init__()
        depth, width = dimensions.num_encoder_layers, dimensions.hidden_dim
        self.level_ratios, self.layer_ratios, self.scale_intervals = level_ratios, layer_ratios, scale_intervals
        self.selector = ForegroundSelector(dimensions, "top_down")
        self.layers = nn.ModuleList(EncoderLayer(dimensions) for _ in range(depth))
        self.dual_attention = nn.ModuleList(DualAttention(dimensions, fine_tokens, True) for _ in range(depth))
        self.background = BackgroundEmbedding(width, background_cells) if background_embedding else None
        self.fusion = TokenFusion(width, dimensions.num_levels) if token_fusion else None

    def forward(self, tokens: Tokens, proposal_head: ProposalHead | None, outputs: Outputs) -> Encoded:
        """Encode the kept tokens, mark the others as background, fuse the levels.

        Args:
            tokens: the feature pyramid.
            proposal_head: its projection feeds the selector, its class head the dual attention.
            outputs: the same for both.
        """
        assert proposal_head is not None
        salience, scores = self.selector.of(tokens, proposal_head)
        ranking = self.rank(salience, scores, tokens)
        memory, kept_tokens = update_ranked(ranking, self.layers, self.dual_attention, tokens, proposal_head)
        if self.background is not None:
            last = ranking.indices[:, : ranking.kept[-1]]
            memory = memory + self.background(tokens, last)
        if self.fusion is not None:
            memory = self.fusion(memory, tokens.sizes)
        return Encoded(memory, kept_tokens, scores, foreground=salience)

    def rank(self, salience: Tensor, scores: Tensor, tokens: Tokens) -> Ranking:
        """The best tokens of each level, in one ranking.

        As in the official code, every image brings as many tokens of a level as the one that has most there, some on
        padding if need be, and updates the best of all these up to its own number.

        Args:
            salience: (B, S) as it was predicted.
            scores: (B, S), the same with the least of all on padding, which the dual attention reads.
            tokens: the geometry.
        """
        counts = level_counts(tokens.valid_by_level, self.level_ratios)
        indices, values, start = [], [], 0
        levels = salience.split(tokens.cells, 1), tokens.padding.split(tokens.cells, 1)
        for level, padding, count in zip(*levels, map(max, zip(*counts))):
            best = torch.where(padding, level.min(), level).topk(count, dim=1)
            indices.append(best.indices + start)
            values.append(best.values)
            start += level.shape[1]
        order = torch.cat(values, 1).sort(dim=1, descending=True).indices
        ranked = torch.cat(indices, 1).gather(1, order)
        own = [sum(levels) for levels in counts]
        return Ranking(ranked, scores.gather(1, ranked), own, layer_counts(ranked.shape[1], self.layer_ratios))

    def loss_terms(self) -> list[LossTerm]:
        """The selector learns from the objects' boxes."""
        return [SalienceLoss(self.scale_intervals)]


class BackgroundEmbedding(nn.Module):
    """A learned embedding of a cell's row and column, the same on every level.

    Args:
        width: channels; half for the column, then half for the row.
        cells: the most rows and columns that a level may have.
    """

    def __init__(self, width: int, cells: int) -> None:
        super().__init__()
        self.cells = cells
        self.rows = nn.Parameter(torch.rand(cells, width // 2))
        self.columns = nn.Parameter(torch.rand(cells, width // 2))

    def forward(self, tokens: Tokens, updated: Tensor) -> Tensor:
        """Of all tokens but those at (B, n) and those on padding, which get zero: (B, S, C).

        Raises:
            UsageError: a level has more rows or columns than embeddings.
        """
        most = max(max(size) for size in tokens.sizes)
        if most > self.cells:
            raise UsageError(
                f"an image has {most} cells of {tokens.finest_stride} pixels in a row, the background embedding "
                f"{self.cells}",
                hint="give smaller images, or build the detector with a larger background_cells",
            )
        levels = []
        for height, width in tokens.sizes:
            columns, rows = self.columns[None, :width], self.rows[:height, None]
            levels.append(torch.cat([columns.expand(height, -1, -1), rows.expand(-1, width, -1)], -1).flatten(0, 1))
        embedding = torch.cat(levels).expand(len(updated), -1, -1)
        left_out = ~tokens.padding.scatter(1, updated, True)
        return embedding * left_out[..., None]


def level_counts(valid: list[list[int]], ratios: Sequence[float]) -> list[list[int]]:
    """How many tokens each image keeps of each level, rounded down in float32 as in the official code.

    The coarsest level keeps one at least, so that an image has something to update.
    """
    counts = [[int(np.float32(number) * np.float32(ratio)) for number, ratio in zip(image, ratios)] for image in valid]
    return [[*image[:-1], max(image[-1], 1)] for image in counts]


def layer_counts(number: int, ratios: Sequence[float]) -> list[int]:
    """How many of so many tokens each layer updates, one at least; rounded down in float32 too."""
    return [max(int(np.float32(number) * np.float32(ratio)), 1) for ratio in ratios]
