"""Convolutions across the levels of a pyramid, as the encoders of RT-DETR and Salience-DETR have them.

From coarse to fine (a feature pyramid), then from fine to coarse (path aggregation: PANet, Liu et al., CVPR 2018), with
blocks of RepVGG (Ding et al., CVPR 2021). Shapes: B images, S tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrbench.models.layers import with_whole_gradient


def fuse_levels(
    levels: Sequence[Tensor],
    lateral: Iterable[nn.Module],
    top_down: Iterable[nn.Module],
    downsample: Iterable[nn.Module],
    bottom_up: Iterable[nn.Module],
) -> list[Tensor]:
    """Fuse each level with the next coarser one, then each with the next finer one.

    Args:
        levels: (B, C, H_l, W_l), fine to coarse.
        lateral: for each step from coarse to fine what the coarser level goes through first; what comes out is also
            what the way back meets.
        top_down: for each of these steps, makes one map of the coarser level, enlarged, and the finer one.
        downsample: for each step from fine to coarse, halves the finer level.
        bottom_up: for each of these steps, makes one map of the finer level, halved, and the coarser one.

    Returns:
        Levels of the same shapes.
    """
    *finer, coarser = levels
    down = []
    for through, fusion, level in zip(lateral, top_down, reversed(finer)):
        down.append(through(coarser))
        coarser = fusion(F.interpolate(down[-1], size=level.shape[-2:]), level)
    fused = [coarser]
    for halve, fusion, level in zip(downsample, bottom_up, reversed(down)):
        fused.append(fusion(halve(fused[-1]), level))
    return fused


def as_maps(tokens: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """(B, S, C) tokens of levels of these sizes (height, width) -> a (B, C, H_l, W_l) for each."""
    split = tokens.split([height * width for height, width in sizes], 1)
    return [level.transpose(1, 2).unflatten(2, size) for level, size in zip(split, sizes)]


def as_tokens(levels: Iterable[Tensor]) -> Tensor:
    """(B, C, H_l, W_l) of each level -> (B, S, C), of maps out of batch norms (see `with_whole_gradient`)."""
    return torch.cat([with_whole_gradient(level).flatten(2).transpose(1, 2) for level in levels], 1)


class RepBlock(nn.Module):
    """A 3x3 and a 1x1 convolution side by side, which one 3x3 convolution could stand for (RepVGG).

    Args:
        width: channels.
        groups: of the convolutions.
    """

    def __init__(self, width: int, groups: int = 1) -> None:
        super().__init__()
        self.wide = conv_norm(width, width, 3, groups=groups)
        self.narrow = conv_norm(width, width, 1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return F.silu(self.branches(x))

    def branches(self, x: Tensor) -> Tensor:
        """The sum of both convolutions, (B, C, H, W) -> (B, C, H, W)."""
        return self.wide(x) + self.narrow(x)


def conv_norm(
    given: int,
    wanted: int,
    size: int,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] | None = None,
) -> nn.Sequential:
    """A convolution without bias, (B, given, H, W) -> (B, wanted, H / stride, W / stride), and its batch norm."""
    conv = nn.Conv2d(given, wanted, size, stride, padding=size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(wanted), *([activation()] if activation else []))
