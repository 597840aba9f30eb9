"""A backbone small enough to train on two CPU cores in minutes."""

from __future__ import annotations

from torch import Tensor, nn

from detrbench.models.backbones.resnet import first_stage
from detrbench.models.contracts import Backbone
from detrbench.models.dimensions import Dimensions


class Tiny(nn.Module, Backbone):
    """Residual stages with batch norm, strides 4 to 32.

    Args:
        dimensions: unused; every backbone takes it.
        finest_stride: of the first level that is returned.
        width: channels at stride 4, doubled at stride 8, 16 and 32.
    """

    def __init__(self, dimensions: Dimensions, finest_stride: int, width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.first = first_stage(finest_stride)
        self.channels = widths[self.first :]
        self.stem = nn.Sequential(_unit(3, width // 2, 2), _unit(width // 2, width, 2))
        self.stages = nn.ModuleList(nn.Sequential(_unit(a, b, 2), Residual(b)) for a, b in zip(widths, widths[1:]))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> of (B, w, H/4, W/4), (B, 2w, H/8, W/8), ... (B, 8w, H/32, W/32) those asked for."""
        x = self.stem(images)
        levels = [x]
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return levels[self.first :]


class Residual(nn.Module):
    """Two convolutions around a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _unit(channels, channels, 1)
        self.second = _unit(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x + self.second(self.first(x))


def _unit(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )
