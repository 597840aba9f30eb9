"""Swin Transformer (Liu et al., ICCV 2021) for detection, from torchvision's blocks.

What differs from torchvision's classifier is what the official detection code does (microsoft/Swin-Transformer's
object detection branch, which Sparse DETR, H-DETR, DINO and detectron2 took over): images are padded to whole patches,
every second block shifts its windows even where the whole map is one window, and each level has its own norm.

Shapes: B images, H x W map, C channels, n windows of w x w cells, M heads.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.swin_transformer import ShiftedWindowAttention, SwinTransformer, SwinTransformerBlock

from detrbench.models.backbones.resnet import first_stage
from detrbench.models.contracts import Backbone
from detrbench.models.dimensions import Dimensions

PATCH = 4
# Added to the logit of a pair of cells that meet in a window only because the map was rolled.
FOREIGN = -100.0


class WindowAttention(ShiftedWindowAttention):
    """Self-attention within windows, which lie `shift_size` cells to the right and below in every second block.

    torchvision leaves a direction unshifted where one window covers it; the official code shifts always.
    """

    def define_relative_position_index(self) -> None:
        """(w * w, w * w) row of the bias table for each pair of cells, shaped as official files hold it."""
        height, width = self.window_size
        cell = torch.arange(height * width)
        dy = cell[:, None] // width - cell // width + height - 1
        dx = cell[:, None] % width - cell % width + width - 1
        self.register_buffer("relative_position_index", dy * (2 * width - 1) + dx)

    def get_relative_position_bias(self) -> Tensor:
        """(M, w * w, w * w) learned bias of each pair of cells."""
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C); cells beyond the map are zero, and take part as keys."""
        height, width, channels = x.shape[1:]
        window, shift = self.window_size[0], self.shift_size[0]
        x = F.pad(x, (0, 0, 0, -width % window, 0, -height % window))
        rows, columns = x.shape[1], x.shape[2]
        if shift:
            x = x.roll((-shift, -shift), (1, 2))
        windows = partition(x, window)  # (B * n, w * w, C)
        split = (*windows.shape[:2], 3, self.num_heads, channels // self.num_heads)
        query, key, value = self.qkv(windows).view(split).permute(2, 0, 3, 1, 4)  # (B * n, M, w * w, D) each
        bias = self.get_relative_position_bias()
        if shift:
            bias = bias + foreign_cells(rows, columns, window, shift, x)[:, None]  # (n, M, w * w, w * w)
            bias = bias.repeat(len(x), 1, 1, 1)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        x = merge(self.proj(mixed.transpose(1, 2).flatten(2)), window, rows, columns)
        if shift:
            x = x.roll((shift, shift), (1, 2))
        return x[:, :height, :width]


def partition(x: Tensor, window: int) -> Tensor:
    """(B, H, W, C) -> (B * n, w * w, C), images, windows and their cells row-major."""
    return x.unflatten(2, (-1, window)).unflatten(1, (-1, window)).transpose(2, 3).flatten(3, 4).flatten(0, 2)


def merge(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """The inverse of `partition`: (B * n, w * w, C) -> (B, H, W, C)."""
    x = windows.unflatten(1, (window, window)).unflatten(0, (-1, height // window, width // window))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def foreign_cells(height: int, width: int, window: int, shift: int, like: Tensor) -> Tensor:
    """(n, w * w, w * w): `FOREIGN` for pairs that rolling brought into one window, 0 for neighbours."""

    def region(size: int) -> Tensor:
        cell = torch.arange(size, device=like.device)
        return (cell >= size - window).long() + (cell >= size - shift)

    regions = region(height)[:, None] * 3 + region(width)
    regions = partition(regions[None, :, :, None], window)[..., 0]  # (n, w * w)
    foreign = regions[..., :, None] != regions[..., None, :]
    return torch.zeros_like(foreign, dtype=like.dtype).masked_fill(foreign, FOREIGN)


class SwinBackbone(nn.Module, Backbone):
    """The stages of a Swin Transformer, from one stride to 32.

    Args:
        embed_dim: channels at stride 4, doubled at each later stage.
        depths: blocks of each stage.
        num_heads: attention heads of each stage.
        finest_stride: of the first level that is returned: 4, 8, 16 or 32.
        window_size: side of a window in cells.
        drop_path: rate at which the last block is skipped while training; earlier ones in proportion.
        swin_frozen_stages: stages without gradient, the patch embedding counted as the first.
    """

    def __init__(
        self,
        embed_dim: int,
        depths: tuple[int, ...],
        num_heads: tuple[int, ...],
        finest_stride: int,
        window_size: int,
        drop_path: float,
        swin_frozen_stages: int,
    ) -> None:
        super().__init__()
        self.body = SwinTransformer(
            patch_size=[PATCH, PATCH],
            embed_dim=embed_dim,
            depths=list(depths),
            num_heads=list(num_heads),
            window_size=[window_size, window_size],
            stochastic_depth_prob=drop_path,
            num_classes=1,
            block=partial(SwinTransformerBlock, attn_layer=WindowAttention),
        )
        del self.body.norm, self.body.head
        self.first = first_stage(finest_stride)
        self.channels = [embed_dim * 2**stage for stage in range(self.first, len(depths))]
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for channels in self.channels)
        # `features` holds the patch embedding, then blocks and merging in turn.
        self.frozen = list(self.body.features[: 2 * swin_frozen_stages - 1 if swin_frozen_stages else 0])
        for module in self.frozen:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> SwinBackbone:
        """Frozen stages stay as in inference: none of their blocks is skipped."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> of (B, C, H/4, W/4), (B, 2C, H/8, W/8), ... those asked for; sizes are rounded up."""
        height, width = images.shape[-2:]
        x = F.pad(images, (0, -width % PATCH, 0, -height % PATCH))
        stages = []
        # Before the blocks of each stage stands the patch embedding, then merging.
        for reduction, blocks in zip(self.body.features[::2], self.body.features[1::2]):
            x = blocks(reduction(x))
            stages.append(x)
        return [norm(stage).permute(0, 3, 1, 2) for stage, norm in zip(stages[self.first :], self.norms)]


def swin_tiny(
    dimensions: Dimensions, finest_stride: int, window_size: int, drop_path: float, swin_frozen_stages: int
) -> SwinBackbone:
    """Swin-T."""
    return SwinBackbone(96, (2, 2, 6, 2), (3, 6, 12, 24), finest_stride, window_size, drop_path, swin_frozen_stages)


def swin_base(
    dimensions: Dimensions, finest_stride: int, window_size: int, drop_path: float, swin_frozen_stages: int
) -> SwinBackbone:
    """Swin-B."""
    return SwinBackbone(128, (2, 2, 18, 2), (4, 8, 16, 32), finest_stride, window_size, drop_path, swin_frozen_stages)


def swin_large(
    dimensions: Dimensions, finest_stride: int, window_size: int, drop_path: float, swin_frozen_stages: int
) -> SwinBackbone:
    """Swin-L."""
    return SwinBackbone(192, (2, 2, 18, 2), (6, 12, 24, 48), finest_stride, window_size, drop_path, swin_frozen_stages)
