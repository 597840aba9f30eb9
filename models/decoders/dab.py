"""DAB-DETR's decoder (Liu et al., ICLR 2022) on sampled attention, as DN-Deformable-DETR uses it."""

from __future__ import annotations

from torch import Tensor

from detrbench.models.decoders.deformable import DeformableDecoder
from detrbench.models.decoders.dino import BoxPosition
from detrbench.models.dimensions import Dimensions
from detrbench.models.layers import MLP
from detrbench.models.tokens import Queries


class DabDecoder(DeformableDecoder):
    """Query positions follow the boxes of each layer and, after the first one, are scaled by the content.

    Args:
        dimensions: widths and the number of layers.
        self_attention_first: see `DeformableDecoder`.
    """

    def __init__(self, dimensions: Dimensions, self_attention_first: bool) -> None:
        super().__init__(dimensions, refine_boxes=True, self_attention_first=self_attention_first)
        width = dimensions.hidden_dim
        self.box_position = BoxPosition(dimensions)
        self.position_scale = MLP(width, width, width, 2).xavier()

    def query_position(self, layer: int, queries: Queries, content: Tensor, reference_points: Tensor) -> Tensor:
        """(B, Q, C) from the box, times what the content asks for."""
        position = self.box_position(reference_points)
        return position if layer == 0 else self.position_scale(content) * position
