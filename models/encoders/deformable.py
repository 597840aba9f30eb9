"""Deformable DETR's encoder: every token is a query (Zhu et al., ICLR 2021, section 4.1)."""

from __future__ import annotations

from torch import nn

from detrbench.models.contracts import Encoder
from detrbench.models.dimensions import Dimensions
from detrbench.models.layers import EncoderLayer
from detrbench.models.proposals import ProposalHead
from detrbench.models.tokens import Encoded, Outputs, Tokens


class DeformableEncoder(nn.Module, Encoder):
    """All tokens attend to sampled tokens in every layer."""

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(dimensions) for _ in range(dimensions.num_encoder_layers))

    def forward(self, tokens: Tokens, proposal_head: ProposalHead | None, outputs: Outputs) -> Encoded:
        """(B, S, C) features to memory; there is nothing to predict."""
        memory = tokens.features
        reference_points = tokens.encoder_reference_points()
        for layer in self.layers:
            memory = layer(memory, tokens.positions, reference_points, memory, tokens)
        return Encoded(memory, updated_from=[0] * len(self.layers))
