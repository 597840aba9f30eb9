"""Deformable DETR's decoder, with or without box refinement (Zhu et al., ICLR 2021, sections 4.1-4.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detrbench.models.dimensions import Dimensions
from detrbench.models.heads import DetectionHeads
from detrbench.models.layers import DecoderLayer
from detrbench.models.tokens import Decoded, Encoded, Queries, Tokens


class DeformableDecoder(nn.Module):
    """Self-attention and sampled cross-attention; the query position stays the same in every layer.

    Args:
        dimensions: widths and the number of layers.
        refine_boxes: each layer's boxes, detached, are the next layer's reference.
    """

    def __init__(self, dimensions: Dimensions, refine_boxes: bool) -> None:
        super().__init__()
        self.refine_boxes = refine_boxes
        self.layers = nn.ModuleList(DecoderLayer(dimensions) for _ in range(dimensions.num_decoder_layers))

    def forward(
        self, queries: Queries, encoded: Encoded, tokens: Tokens, heads: DetectionHeads, every_layer: bool
    ) -> Decoded:
        """Decode.

        Args:
            queries: content, position, reference points.
            encoded: the memory to sample.
            tokens: its geometry.
            heads: whose box heads refine the reference.
            every_layer: return each layer's state, as training needs, and refine behind the last one too, as the
                official code does; otherwise the last state only.
        """
        content, reference_points = queries.content, queries.reference_points
        decoded = Decoded([], [], [], [])
        for index, layer in enumerate(self.layers):
            scaled = scale_reference_points(reference_points, tokens)
            content, sampled = layer(content, queries.position, scaled, encoded.memory, tokens)
            decoded.sampling_locations.append(sampled.sampling_locations)
            decoded.attention_weights.append(sampled.attention_weights)
            last = index == len(self.layers) - 1
            if every_layer or last:
                decoded.states.append(content)
                decoded.reference_points.append(reference_points)
            if self.refine_boxes and (every_layer or not last):
                reference_points = heads.boxes(index, content, reference_points).detach()
        return decoded


def scale_reference_points(reference_points: Tensor, tokens: Tokens) -> Tensor:
    """(B, Q, 2 or 4) of the valid area -> (B, Q, L, 2 or 4) of each padded level."""
    ratios = tokens.valid_ratios
    if reference_points.shape[-1] == 4:
        ratios = torch.cat([ratios, ratios], -1)
    return reference_points[:, :, None] * ratios[:, None]
