"""RT-DETR's hybrid encoder (Zhao et al., CVPR 2024, section 4.2): attention on one level, convolutions across all.

Dense attention within the coarsest level alone (AIFI), then two ways across the levels: from coarse to fine (a feature
pyramid), and from fine to coarse (path aggregation), with fusion blocks of re-parameterisable convolutions (CCFF).
Shapes: B images, S tokens, C channels.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrbench.models.attention import SelfAttention
from detrbench.models.contracts import Encoder
from detrbench.models.dimensions import Dimensions
from detrbench.models.encoders.across_levels import RepBlock, as_maps, as_tokens, conv_norm, fuse_levels
from detrbench.models.layers import FeedForward
from detrbench.models.proposals import ProposalHead
from detrbench.models.tokens import Encoded, Outputs, Tokens


class HybridEncoder(nn.Module, Encoder):
    """All levels of the memory are new; it need not be as wide as the tokens that it is made from.

    Args:
        dimensions: of the memory.
        encoder_dim: width of the tokens, and of all between; None for that of the memory.
        encoder_ffn_dim: hidden width of the feed-forward network.
        attention_layers: on the coarsest level.
        fusion_blocks: convolution blocks in a fusion.
        fusion_expansion: their width beside `encoder_dim`.
    """

    def __init__(
        self,
        dimensions: Dimensions,
        encoder_dim: int | None,
        encoder_ffn_dim: int,
        attention_layers: int,
        fusion_blocks: int,
        fusion_expansion: float,
    ) -> None:
        super().__init__()
        width = encoder_dim or dimensions.hidden_dim
        inner = replace(dimensions, hidden_dim=width, ffn_dim=encoder_ffn_dim)
        steps, hidden = range(dimensions.num_levels - 1), round(width * fusion_expansion)
        self.attention = nn.ModuleList(AttentionLayer(inner) for _ in range(attention_layers))
        # In the order of the steps: the first lateral convolution belongs to the coarsest level.
        self.lateral = nn.ModuleList(conv_norm(width, width, 1, activation=nn.SiLU) for _ in steps)
        self.top_down = nn.ModuleList(Fusion(width, hidden, fusion_blocks) for _ in steps)
        self.downsample = nn.ModuleList(conv_norm(width, width, 3, stride=2, activation=nn.SiLU) for _ in steps)
        self.bottom_up = nn.ModuleList(Fusion(width, hidden, fusion_blocks) for _ in steps)
        self.output = nn.ModuleList(conv_norm(width, dimensions.hidden_dim, 1) for _ in range(dimensions.num_levels))

    def forward(self, tokens: Tokens, proposal_head: ProposalHead | None, outputs: Outputs) -> Encoded:
        """(B, S, C) features to memory; there is nothing to predict."""
        start = tokens.features.shape[1] - tokens.cells[-1]
        coarsest = self._attend(tokens.features[:, start:], tokens)
        levels = as_maps(tokens.features, tokens.sizes)[:-1] + as_maps(coarsest, tokens.sizes[-1:])
        fused = fuse_levels(levels, self.lateral, self.top_down, self.downsample, self.bottom_up)
        memory = as_tokens(output(level) for output, level in zip(self.output, fused))
        return Encoded(memory, updated_from=[*[start] * len(self.attention), 0])

    def _attend(self, coarsest: Tensor, tokens: Tokens) -> Tensor:
        """(B, n, C) tokens of the coarsest level, which attend to each other."""
        count = coarsest.shape[1]
        position = tokens.positions[:, -count:]
        blocked = tokens.padding[:, None, None, -count:] if tokens.padded else None
        for layer in self.attention:
            coarsest = layer(coarsest, position, blocked)
        return coarsest


class AttentionLayer(nn.Module):
    """Dense self-attention and a feed-forward network with GELU, norms behind both."""

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        self.self_attention = SelfAttention(dimensions)
        self.self_attention_norm = nn.LayerNorm(dimensions.hidden_dim)
        self.feed_forward = FeedForward(dimensions, F.gelu)
        self.dropout = dimensions.dropout

    def forward(self, tokens: Tensor, position: Tensor, blocked: Tensor | None) -> Tensor:
        """(B, n, C) -> (B, n, C); arguments as for `SelfAttention`."""
        mixed = self.self_attention(tokens, position, blocked)
        tokens = self.self_attention_norm(tokens + F.dropout(mixed, self.dropout, self.training))
        return self.feed_forward(tokens)


class Fusion(nn.Module):
    """Two maps into one: a path of convolution blocks beside a short one (a cross stage partial layer).

    Args:
        width: C, of each map and of the result.
        hidden: of the paths.
        blocks: in the long path.
    """

    def __init__(self, width: int, hidden: int, blocks: int) -> None:
        super().__init__()
        self.long = conv_norm(2 * width, hidden, 1, activation=nn.SiLU)
        self.blocks = nn.Sequential(*(RepBlock(hidden) for _ in range(blocks)))
        self.short = conv_norm(2 * width, hidden, 1, activation=nn.SiLU)
        same = hidden == width
        self.last = nn.Identity() if same else conv_norm(hidden, width, 1, activation=nn.SiLU)

    def forward(self, resized: Tensor, level: Tensor) -> Tensor:
        """(B, C, H, W) of another level, brought to the size of this one, (B, C, H, W) -> (B, C, H, W)."""
        both = torch.cat([resized, level], 1)
        return self.last(self.blocks(self.long(both)) + self.short(both))
