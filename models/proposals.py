"""The head that encoder and query selection share: what each token would detect (Deformable DETR, two-stage)."""

from __future__ import annotations

from torch import Tensor, nn

from detrbench.models.dimensions import Dimensions
from detrbench.models.layers import box_head, class_head
from detrbench.models.tokens import Prediction, Tokens


class ProposalHead(nn.Module):
    """Scores and boxes of encoder tokens, and the projection before them (Deformable DETR, two-stage).

    Sparse DETR and Focus-DETR read the same projection a second time, before the encoder, to score tokens.
    """

    def __init__(self, dimensions: Dimensions, predicts: bool) -> None:
        super().__init__()
        self.projection = nn.Linear(dimensions.hidden_dim, dimensions.hidden_dim)
        self.norm = nn.LayerNorm(dimensions.hidden_dim)
        nn.init.xavier_uniform_(self.projection.weight)
        if predicts:
            self.class_embed = class_head(dimensions)
            self.box_embed = box_head(dimensions)

    def predict(self, features: Tensor, tokens: Tokens) -> Prediction:
        """Classes and boxes of all tokens (B, S, C), boxes relative to each token's proposal."""
        proposals, excluded = tokens.proposals()
        projected = self.project(features, excluded)
        return Prediction(self.class_embed(projected), (self.box_embed(projected) + proposals).sigmoid())

    def project(self, features: Tensor, excluded: Tensor) -> Tensor:
        """(B, S, C) -> (B, S, C), tokens that are no candidates (B, S) zeroed first."""
        return self.norm(self.projection(features.masked_fill(excluded[..., None], 0.0)))
