"""Salience-DETR's "cross-level token fusion" behind its encoder (Hou et al., CVPR 2024).

Its blocks are RepVGG's with an attention of channels behind them. Shapes: B images, S tokens, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrbench.models.encoders.across_levels import RepBlock, as_maps, as_tokens, conv_norm, fuse_levels

GROUPS = 4  # of a block's convolutions
BLOCKS = 3
REDUCTION = 16  # of the channels inside the attention of channels


class TokenFusion(nn.Module):
    """Lets tokens of neighbouring levels reach each other, by convolutions.

    What lies on padding takes part, also in the means that the norms learn, as in the official code. Nothing of it is
    recomputed for the gradient (see `EncoderLayer`), since the norms would count a batch twice.

    Args:
        width: channels.
        num_levels: there is nothing to fuse where it is 1.
    """

    def __init__(self, width: int, num_levels: int) -> None:
        super().__init__()
        steps = num_levels - 1
        self.lateral = nn.ModuleList(conv_norm(width, width, 1, activation=nn.SiLU) for _ in range(steps))
        self.top_down = nn.ModuleList(FusionLayer(width) for _ in range(steps))
        self.downsample = nn.ModuleList(conv_norm(width, width, 3, stride=2, activation=nn.SiLU) for _ in range(steps))
        self.bottom_up = nn.ModuleList(FusionLayer(width) for _ in range(steps))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)

    def forward(self, memory: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
        """(B, S, C) tokens of levels of these sizes (height, width), fine to coarse -> (B, S, C)."""
        # The paths name their steps by the finer of two levels, and the first one begins at the coarsest.
        down = reversed(self.lateral), reversed(self.top_down)
        return as_tokens(fuse_levels(as_maps(memory, sizes), *down, self.downsample, self.bottom_up))


class FusionLayer(nn.Module):
    """Two levels into one: some blocks, and a way around them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.main = conv_norm(2 * width, width, 1, activation=nn.SiLU)
        self.around = conv_norm(2 * width, width, 1, activation=nn.SiLU)
        self.blocks = nn.Sequential(*(FusionBlock(width) for _ in range(BLOCKS)))

    def forward(self, resized: Tensor, level: Tensor) -> Tensor:
        """(B, C, H, W) of another level, brought to the size of this one, (B, C, H, W) -> (B, C, H, W)."""
        both = torch.cat([resized, level], 1)
        return self.blocks(self.main(both)) + self.around(both)


class FusionBlock(RepBlock):
    """RepVGG's block, then channels weighed by their attention; with a residual."""

    def __init__(self, width: int) -> None:
        super().__init__(width, GROUPS)
        self.channels = ChannelAttention(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x + self.channels(super().forward(x))


class ChannelAttention(nn.Module):
    """Squeeze and excitation (Hu et al., CVPR 2018), with a weighted mean of the cells (GCNet, Cao et al., 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell_score = nn.Conv2d(width, 1, 1, bias=False)  # a softmax over cells would drop it
        self.squeeze = nn.Conv2d(width, max(width // REDUCTION, 1), 1, bias=False)
        self.excite = nn.Conv2d(max(width // REDUCTION, 1), width, 1, bias=False)

    def forward(self, level: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        share = self.cell_score(level).flatten(2).softmax(-1).transpose(1, 2)  # (B, H * W, 1)
        context = (level.flatten(2) @ share)[..., None]  # (B, C, 1, 1)
        return level * self.excite(F.relu(self.squeeze(context))).sigmoid()
