"""Deformable DETR's encoder: every token is a query (Zhu et al., ICLR 2021, section 4.1)."""

from __future__ import annotations

from torch import nn

from detrbench.models.criterion import LossTerm
from detrbench.models.dimensions import Dimensions
from detrbench.models.heads import ProposalHead
from detrbench.models.layers import EncoderLayer
from detrbench.models.tokens import Encoded, Tokens


class DeformableEncoder(nn.Module):
    """All tokens attend to sampled tokens in every layer."""

    needs_projection = needs_prediction = False

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(dimensions) for _ in range(dimensions.num_encoder_layers))

    def forward(self, tokens: Tokens, proposal_head: ProposalHead | None, auxiliary: bool) -> Encoded:
        """Encode; neither the proposal head nor auxiliary outputs are used here."""
        memory = tokens.features
        reference_points = tokens.encoder_reference_points()
        for layer in self.layers:
            memory = layer(memory, tokens.positions, reference_points, memory, tokens)
        return Encoded(memory, updated_from=[0] * len(self.layers))

    def loss_terms(self) -> list[LossTerm]:
        """None of its own."""
        return []
