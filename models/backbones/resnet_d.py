"""ResNet-D (He et al., CVPR 2019, "Bag of Tricks", model tweaks), as RT-DETR has it; torchvision's blocks.

Three 3x3 convolutions stand for the stem's 7x7 one, and a shortcut that halves the map averages before its 1x1
convolution, instead of leaving three of four cells out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torchvision
from torch import Tensor, nn
from torchvision.models import ResNet
from torchvision.ops import FrozenBatchNorm2d

from detrbench.models.backbones.resnet import ResNetBackbone
from detrbench.models.dimensions import Dimensions
from detrbench.models.pixels import unit_range

STEM = 64  # channels


class ResNetDBackbone(ResNetBackbone):
    """The stages of a ResNet-D.

    Args:
        body: a torchvision ResNet, whose stem and shortcuts are replaced.
        finest_stride: see `ResNetBackbone`.
        frozen_stages: see `ResNetBackbone`.
        pixels: "imagenet" takes images as they come, "unit" puts them back into [0, 1] first.
    """

    def __init__(self, body: ResNet, finest_stride: int, frozen_stages: int, pixels: str) -> None:
        norm = cast("Callable[[int], nn.Module]", type(body.bn1))
        body.conv1 = _stem(norm)
        for number, stage in enumerate((body.layer1, body.layer2, body.layer3, body.layer4)):
            stage[0].downsample = _shortcut(stage[0], norm, halves=number > 0)
        super().__init__(body, finest_stride, frozen_stages)
        self.unit_range = pixels == "unit"
        if frozen_stages:
            body.bn1.requires_grad_(False)  # of the stem's last convolution, where norms are trained

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> (B, C_l, H/4, W/4), ... (B, C_l, H/32, W/32), from the finest level asked for on."""
        return super().forward(unit_range(images) if self.unit_range else images)


def _stem(norm: Callable[[int], nn.Module]) -> nn.Sequential:
    """All of it but the last norm and ReLU, which the body has."""
    half = STEM // 2
    return nn.Sequential(
        nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False),
        norm(half),
        nn.ReLU(),
        nn.Conv2d(half, half, 3, padding=1, bias=False),
        norm(half),
        nn.ReLU(),
        nn.Conv2d(half, STEM, 3, padding=1, bias=False),
    )


def _shortcut(block: nn.Module, norm: Callable[[int], nn.Module], halves: bool) -> nn.Sequential:
    """Of the first block of a stage, which has a convolution even where it keeps the number of channels."""
    given = cast("nn.Conv2d", block.conv1).in_channels
    wanted = cast("nn.Conv2d", getattr(block, "conv3", block.conv2)).out_channels
    pool = [nn.AvgPool2d(2, 2, ceil_mode=True)] if halves else []
    return nn.Sequential(*pool, nn.Conv2d(given, wanted, 1, bias=False), norm(wanted))


def _build(
    network: Callable[..., ResNet], finest_stride: int, frozen_stages: int, frozen_norms: bool, pixels: str
) -> ResNetDBackbone:
    norm = FrozenBatchNorm2d if frozen_norms else nn.BatchNorm2d
    return ResNetDBackbone(network(weights=None, norm_layer=norm), finest_stride, frozen_stages, pixels)


def resnet18_vd(
    dimensions: Dimensions, finest_stride: int, frozen_stages: int, frozen_norms: bool, pixels: str
) -> ResNetDBackbone:
    """ResNet-18-D, blocks of two 3x3 convolutions."""
    return _build(torchvision.models.resnet18, finest_stride, frozen_stages, frozen_norms, pixels)


def resnet34_vd(
    dimensions: Dimensions, finest_stride: int, frozen_stages: int, frozen_norms: bool, pixels: str
) -> ResNetDBackbone:
    """ResNet-34-D, blocks of two 3x3 convolutions."""
    return _build(torchvision.models.resnet34, finest_stride, frozen_stages, frozen_norms, pixels)


def resnet50_vd(
    dimensions: Dimensions, finest_stride: int, frozen_stages: int, frozen_norms: bool, pixels: str
) -> ResNetDBackbone:
    """ResNet-50-D, stride in the 3x3 convolution."""
    return _build(torchvision.models.resnet50, finest_stride, frozen_stages, frozen_norms, pixels)


def resnet101_vd(
    dimensions: Dimensions, finest_stride: int, frozen_stages: int, frozen_norms: bool, pixels: str
) -> ResNetDBackbone:
    """ResNet-101-D."""
    return _build(torchvision.models.resnet101, finest_stride, frozen_stages, frozen_norms, pixels)
