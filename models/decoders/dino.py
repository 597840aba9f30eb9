"""DINO's decoder (Zhang et al., ICLR 2023): query positions follow the boxes, and boxes look forward twice."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detrbench.models.decoders.deformable import DeformableDecoder
from detrbench.models.dimensions import Dimensions
from detrbench.models.layers import MLP
from detrbench.models.positions import box_positions
from detrbench.models.tokens import Queries


class DinoDecoder(DeformableDecoder):
    """Makes each layer's query position from the box that the layer starts at (DAB-DETR, section 4.2).

    A norm stands behind the layers: detections read the normed state, while the refinement of the reference reads the
    state as it is, as in the official code.

    Args:
        dimensions: widths and the number of layers.
        look_forward_twice: see `DeformableDecoder`.
        self_attention_first: see there too.
    """

    def __init__(self, dimensions: Dimensions, look_forward_twice: bool, self_attention_first: bool) -> None:
        super().__init__(dimensions, True, look_forward_twice, self_attention_first)
        self.norm = nn.LayerNorm(dimensions.hidden_dim)
        self.box_position = BoxPosition(dimensions)

    def query_position(self, layer: int, queries: Queries, content: Tensor, reference_points: Tensor) -> Tensor:
        """(B, Q, C) from the box alone."""
        return self.box_position(reference_points)


class BoxPosition(nn.Module):
    """A box's sine embedding through a small network."""

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        width = dimensions.hidden_dim
        self.features = width // 2
        self.network = MLP(2 * width, width, width, 2).xavier()

    def forward(self, reference_points: Tensor) -> Tensor:
        """(B, Q, L, 4) boxes of each padded level -> (B, Q, C); only the first level's are read."""
        x, y, size = reference_points[:, :, 0].split([1, 1, 2], -1)
        return self.network(box_positions(torch.cat([y, x, size], -1), self.features))
