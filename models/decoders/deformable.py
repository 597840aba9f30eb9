"""Deformable DETR's decoder, with or without box refinement (Zhu et al., ICLR 2021, sections 4.1-4.2).

Later decoders differ in where a layer's query position comes from and in what stands behind the layers; they override
`query_position` and `norm`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from detrbench.models.attention import sampled_attention
from detrbench.models.contracts import Decoder, Heads
from detrbench.models.dimensions import Dimensions
from detrbench.models.layers import DecoderLayer
from detrbench.models.tokens import Decoded, Encoded, Outputs, Queries, Tokens


class DeformableDecoder(nn.Module, Decoder):
    """Self-attention and sampled cross-attention; the query position stays the same in every layer.

    Args:
        dimensions: widths and the number of layers.
        refine_boxes: each layer's boxes, detached, are the next layer's reference.
        look_forward_twice: the boxes that a layer reports are relative to the boxes of the layer before as they were
            predicted, not detached, so that two layers learn from them (DINO, section 3.5).
        self_attention_first: a layer's queries see each other before they sample the memory, not behind (MS-DETR).
        attention: makes the sampled attention of a layer.
    """

    def __init__(
        self,
        dimensions: Dimensions,
        refine_boxes: bool,
        look_forward_twice: bool = False,
        self_attention_first: bool = True,
        attention: Callable[[Dimensions], nn.Module] = sampled_attention,
    ) -> None:
        super().__init__()
        self.refine_boxes, self.look_forward_twice = refine_boxes, look_forward_twice
        self.norm: nn.Module = nn.Identity()
        self.layers = nn.ModuleList(
            DecoderLayer(dimensions, self_attention_first, attention) for _ in range(dimensions.num_decoder_layers)
        )

    def forward(
        self,
        queries: Queries,
        encoded: Encoded,
        tokens: Tokens,
        heads: Heads,
        outputs: Outputs,
        mixing_layers: int | None = None,
    ) -> Decoded:
        """Decode.

        Args:
            queries: content, position, reference points.
            encoded: the memory to sample.
            tokens: its geometry.
            heads: whose box heads refine the reference.
            outputs: "all" returns each layer's state and refines behind the last one too, as the official code does;
                "final" the last state only.
            mixing_layers: only the first so many layers have self-attention; None for all.
        """
        content = queries.content
        # Where a layer looks, and what its box is reported relative to: the same numbers, with other gradients.
        reference_points = reported = queries.reference_points
        decoded = Decoded([], [], [])
        for index, layer in enumerate(self.layers):
            scaled = scale_reference_points(reference_points, tokens)
            position = self.query_position(index, queries, content, scaled)
            mixing = mixing_layers is None or index < mixing_layers
            content, inner, points = layer(content, position, scaled, encoded.memory, tokens, queries.blocked, mixing)
            decoded.points.append(points)
            decoded.reference_points.append(reported)
            last = index == len(self.layers) - 1
            if outputs == "all" or last:
                decoded.states.append(self.norm(content))
                decoded.inner.append(inner)
            if self.refine_boxes and (outputs == "all" or not last):
                reported = heads.boxes(index, content, reference_points)
                reference_points = reported.detach()
                if not self.look_forward_twice:
                    reported = reference_points
        return decoded

    def query_position(self, layer: int, queries: Queries, content: Tensor, reference_points: Tensor) -> Tensor:
        """(B, Q, C) added to queries and keys of a layer.

        Args:
            layer: index from 0.
            queries: as they were selected.
            content: (B, Q, C) as the layer before left it.
            reference_points: (B, Q, L, 2 or 4) of each padded level.
        """
        assert queries.position is not None
        return queries.position


def scale_reference_points(reference_points: Tensor, tokens: Tokens) -> Tensor:
    """(B, Q, 2 or 4) of the valid area -> (B, Q, L, 2 or 4) of each padded level."""
    ratios = tokens.valid_ratios
    if reference_points.shape[-1] == 4:
        ratios = torch.cat([ratios, ratios], -1)
    return reference_points[:, :, None] * ratios[:, None]
