"""ResNet with frozen batch norm, from torchvision."""

from __future__ import annotations

from collections.abc import Callable

import torchvision
from torch import Tensor, nn
from torchvision.models import ResNet
from torchvision.ops import FrozenBatchNorm2d

from detrbench.models.catalogue import STRIDES
from detrbench.models.contracts import Backbone
from detrbench.models.dimensions import Dimensions


class ResNetBackbone(nn.Module, Backbone):
    """The stages of a torchvision ResNet, from one stride to 32.

    Args:
        body: the network; its batch norm must be frozen.
        finest_stride: of the first level that is returned: 4, 8, 16 or 32.
        frozen_stages: stages without gradient: 1 is the stem, 2 the stem and `layer1`.
    """

    def __init__(self, body: ResNet, finest_stride: int, frozen_stages: int) -> None:
        super().__init__()
        del body.fc, body.avgpool
        self.body = body
        self.first = first_stage(finest_stride)
        stages = [body.layer1, body.layer2, body.layer3, body.layer4]
        self.channels = [_channels(stage[-1]) for stage in stages[self.first :]]
        for stage in [body.conv1, *stages][:frozen_stages]:
            stage.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> of (B, 256, H/4, W/4), (B, 512, H/8, W/8), ... (B, 2048, H/32, W/32) those asked for."""
        body = self.body
        x = body.maxpool(body.relu(body.bn1(body.conv1(images))))
        levels = []
        for stage in (body.layer1, body.layer2, body.layer3, body.layer4):
            x = stage(x)
            levels.append(x)
        return levels[self.first :]


def _channels(block: nn.Module) -> int:
    """Of what a block of two or three convolutions gives."""
    last = getattr(block, "conv3", block.conv2)
    assert isinstance(last, nn.Conv2d)
    return last.out_channels


def first_stage(finest_stride: int) -> int:
    """Index of the stage of that stride among those of stride 4, 8, 16 and 32."""
    return STRIDES.index(finest_stride)


def _build(network: Callable[..., ResNet], finest_stride: int, frozen_stages: int) -> ResNetBackbone:
    return ResNetBackbone(network(weights=None, norm_layer=FrozenBatchNorm2d), finest_stride, frozen_stages)


def resnet50(dimensions: Dimensions, finest_stride: int, frozen_stages: int) -> ResNetBackbone:
    """ResNet-50 (He et al., 2016), stride in the 3x3 convolution."""
    return _build(torchvision.models.resnet50, finest_stride, frozen_stages)


def resnet101(dimensions: Dimensions, finest_stride: int, frozen_stages: int) -> ResNetBackbone:
    """ResNet-101."""
    return _build(torchvision.models.resnet101, finest_stride, frozen_stages)
