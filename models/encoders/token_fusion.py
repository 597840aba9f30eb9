"""Fusion of the levels behind an encoder: a path from coarse to fine, then one back (PANet, Liu et al., CVPR 2018).

Salience-DETR's "cross-level token fusion" (Hou et al., CVPR 2024): its blocks are RepVGG's (Ding et al., CVPR 2021),
with an attention of channels behind them. Shapes: B images, S tokens, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        self.lateral = nn.ModuleList(convolution(width, width, 1) for _ in range(steps))
        self.top_down = nn.ModuleList(FusionLayer(width) for _ in range(steps))
        self.downsample = nn.ModuleList(convolution(width, width, 3, stride=2) for _ in range(steps))
        self.bottom_up = nn.ModuleList(FusionLayer(width) for _ in range(steps))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)

    def forward(self, memory: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
        """(B, S, C) tokens of levels of these sizes (height, width), fine to coarse -> (B, S, C)."""
        split = memory.split([height * width for height, width in sizes], 1)
        levels = [level.transpose(1, 2).unflatten(2, size) for level, size in zip(split, sizes)]
        for index in reversed(range(len(levels) - 1)):
            # What goes down is also what the way back meets: the coarse level is replaced.
            levels[index + 1] = self.lateral[index](levels[index + 1])
            above = F.interpolate(levels[index + 1], sizes[index], mode="nearest")
            levels[index] = self.top_down[index](torch.cat([above, levels[index]], 1))
        for index in range(len(levels) - 1):
            below = self.downsample[index](levels[index])
            levels[index + 1] = self.bottom_up[index](torch.cat([below, levels[index + 1]], 1))
        return torch.cat([level.flatten(2).transpose(1, 2) for level in levels], 1)


class FusionLayer(nn.Module):
    """Two levels into one: some blocks, and a way around them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.main = convolution(2 * width, width, 1)
        self.around = convolution(2 * width, width, 1)
        self.blocks = nn.Sequential(*(FusionBlock(width) for _ in range(BLOCKS)))

    def forward(self, levels: Tensor) -> Tensor:
        """(B, 2 * C, H, W) -> (B, C, H, W)."""
        return self.blocks(self.main(levels)) + self.around(levels)


class FusionBlock(nn.Module):
    """RepVGG's two convolutions side by side, then channels weighed by their attention; with a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide = convolution(width, width, 3, groups=GROUPS, activation=False)
        self.narrow = convolution(width, width, 1, groups=GROUPS, activation=False)
        self.channels = ChannelAttention(width)

    def forward(self, level: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return level + self.channels(F.silu(self.wide(level) + self.narrow(level)))


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


def convolution(
    in_width: int, out_width: int, size: int, stride: int = 1, groups: int = 1, activation: bool = True
) -> nn.Sequential:
    """A convolution that keeps the size or divides it by the stride, batch norm, and SiLU unless there is none."""
    layers = [
        nn.Conv2d(in_width, out_width, size, stride, padding=size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_width),
    ]
    return nn.Sequential(*layers, *([nn.SiLU()] if activation else []))
