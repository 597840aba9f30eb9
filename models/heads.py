"""The class and box heads of the decoder (DETR; Deformable DETR, appendix A.4)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from detrbench.models.boxes import inverse_sigmoid
from detrbench.models.contracts import Heads
from detrbench.models.dimensions import Dimensions
from detrbench.models.layers import MLP, box_head, class_head
from detrbench.models.tokens import Decoded, Prediction


class DetectionHeads(nn.Module, Heads):
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


def predictions(decoded: Decoded, heads: Callable[[int, Tensor, Tensor], Prediction]) -> list[Prediction]:
    """What heads say of each decoder layer that has a state.

    Args:
        decoded: states and references.
        heads: called with a layer's index, state (B, Q, C) and reference (B, Q, 2 or 4).
    """
    first = len(decoded.reference_points) - len(decoded.states)
    pairs = zip(decoded.states, decoded.reference_points[first:])
    return [heads(first + index, state, reference) for index, (state, reference) in enumerate(pairs)]
