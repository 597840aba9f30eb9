"""Class and box heads (DETR; Deformable DETR, appendix A.4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from detrbench.models.boxes import inverse_sigmoid
from detrbench.models.dimensions import Dimensions
from detrbench.models.layers import MLP
from detrbench.models.tokens import Prediction, Tokens

# Focal loss starts out stable when every class begins at this probability (Lin et al., 2017, section 3.3).
CLASS_PRIOR = 0.01


def class_head(dimensions: Dimensions) -> nn.Linear:
    """C -> K logits, each class starting at `CLASS_PRIOR`."""
    head = nn.Linear(dimensions.hidden_dim, dimensions.num_classes)
    nn.init.constant_(head.bias, -math.log((1 - CLASS_PRIOR) / CLASS_PRIOR))
    return head


def box_head(dimensions: Dimensions) -> MLP:
    """C -> 4 corrections in logit space, zero at the start."""
    head = MLP(dimensions.hidden_dim, dimensions.hidden_dim, 4, 3)
    nn.init.zeros_(head.last.weight)
    nn.init.zeros_(head.last.bias)
    return head


class DetectionHeads(nn.Module):
    """The heads of all decoder layers.

    Args:
        dimensions: widths and the number of layers.
        shared_heads: one pair serves all layers.
    """

    def __init__(self, dimensions: Dimensions, shared_heads: bool) -> None:
        super().__init__()
        self.num_layers, self.logit_eps = dimensions.num_decoder_layers, dimensions.logit_eps
        pairs = 1 if shared_heads else self.num_layers
        self.class_embed = nn.ModuleList(class_head(dimensions) for _ in range(pairs))
        self.box_embed = nn.ModuleList(box_head(dimensions) for _ in range(pairs))

    def start_small(self) -> None:
        """Let first boxes begin small (logit -2) where no proposal gives them a size."""
        head = self.box_embed[0]
        assert isinstance(head, MLP)
        nn.init.constant_(head.last.bias[2:], -2.0)

    def boxes(self, layer: int, state: Tensor, reference_points: Tensor) -> Tensor:
        """Boxes (B, Q, 4) of a layer, relative to points (x, y corrected only) or boxes, in [0, 1]."""
        correction = self.box_embed[layer % len(self.box_embed)](state)
        reference = inverse_sigmoid(reference_points, self.logit_eps)
        if reference.shape[-1] == 2:
            reference = torch.cat([reference, torch.zeros_like(reference)], -1)
        return (correction + reference).sigmoid()

    def forward(self, layer: int, state: Tensor, reference_points: Tensor) -> Prediction:
        """What one layer predicts.

        Args:
            layer: index from 0.
            state: (B, Q, C).
            reference_points: (B, Q, 2) or (B, Q, 4), the reference of that layer.
        """
        logits = self.class_embed[layer % len(self.class_embed)](state)
        return Prediction(logits, self.boxes(layer, state, reference_points))


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
