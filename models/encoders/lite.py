"""Lite DETR's encoder (Li et al., CVPR 2023, section 3): fine levels are updated seldom and cheaply.

Most tokens lie on the finest levels and carry the least meaning each. A block updates the coarse ("high") levels
several times, looking at all levels, and all tokens once.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from detrbench.models.contracts import Encoder
from detrbench.models.dimensions import Dimensions
from detrbench.models.layers import EncoderLayer, FeedForward
from detrbench.models.proposals import ProposalHead
from detrbench.models.tokens import Encoded, Outputs, Tokens


class LiteEncoder(nn.Module, Encoder):
    """Interleaved updates, written HxLy-(A+1)xB in the paper: x high levels, y low ones, B blocks of A layers.

    The last layer of a block updates high and low tokens in one pass from the same input, as the official code does;
    so a block is A layers, not A + 1, and their number is A * B whatever `num_encoder_layers` says.

    Args:
        dimensions: widths and levels.
        high_levels: x; this and the others as in the catalogue of parts.
        high_updates: A.
        blocks: B.
        low_updates: whether the last layer of a block is a `FullLayer`; without one, only the high levels are left for
            the decoder.
    """

    def __init__(
        self, dimensions: Dimensions, high_levels: int, high_updates: int, blocks: int, low_updates: bool
    ) -> None:
        super().__init__()
        self.low_levels, self.low_updates = dimensions.num_levels - high_levels, low_updates
        full_layer = partial(FullLayer, low_levels=self.low_levels)
        block = [EncoderLayer] * (high_updates - 1) + [full_layer if low_updates else EncoderLayer]
        self.layers = nn.ModuleList(layer(dimensions) for layer in block * blocks)

    def forward(self, tokens: Tokens, proposal_head: ProposalHead | None, outputs: Outputs) -> Encoded:
        """(B, S, C) features to memory; there is nothing to predict."""
        low = sum(tokens.cells[: self.low_levels])
        memory, reference_points = tokens.features, tokens.encoder_reference_points()
        updated_from = []
        for layer in self.layers:
            if isinstance(layer, FullLayer):
                memory = layer(memory, tokens.positions, reference_points, memory, tokens)
                updated_from.append(0)
            else:
                high = layer(memory[:, low:], tokens.positions[:, low:], reference_points[:, low:], memory, tokens)
                memory = torch.cat([memory[:, :low], high], 1)
                updated_from.append(low)
        if self.low_updates:
            return Encoded(memory, updated_from=updated_from)
        high_tokens = tokens.without_finest(self.low_levels)
        return Encoded(memory[:, low:], updated_from=[0] * len(self.layers), tokens=high_tokens)


class FullLayer(EncoderLayer):
    """Updates all tokens; those of the low levels pass a narrow feed-forward network of their own."""

    def __init__(self, dimensions: Dimensions, low_levels: int) -> None:
        super().__init__(dimensions)
        self.low_levels = low_levels
        self.low_feed_forward = FeedForward(replace(dimensions, ffn_dim=dimensions.hidden_dim))

    def update(
        self, query: Tensor, position: Tensor, reference_points: Tensor, memory: Tensor, tokens: Tokens
    ) -> Tensor:
        """(B, S, C) -> (B, S, C); every token is a query."""
        low = sum(tokens.cells[: self.low_levels])
        attended = self.attend(query, position, reference_points, memory, tokens)
        return torch.cat([self.low_feed_forward(attended[:, :low]), self.feed_forward(attended[:, low:])], 1)
