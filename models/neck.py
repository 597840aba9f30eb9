"""From the backbone's features to one flat sequence of tokens with positions (Deformable DETR, appendix A.4)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrbench.models.contracts import Neck
from detrbench.models.dimensions import Dimensions
from detrbench.models.layers import with_whole_gradient
from detrbench.models.positions import grid_positions, index_positions
from detrbench.models.precision import full_type
from detrbench.models.tokens import Tokens
from detrbench.models.transfer import written


class Pyramid(nn.Module, Neck):
    """A 1x1 convolution a backbone level, then strided 3x3 convolutions for further levels.

    The first further level reads the backbone's last raw features, each later one its predecessor. A kind says which
    norm stands behind the convolutions, and how a token's place is embedded.
    """

    projections: nn.ModuleList

    def embed(self, padding: Tensor, level: int, dtype: torch.dtype) -> Tensor:
        """The place of each cell of a level, (B, H, W) bool padding -> (B, C, H, W) of that type."""
        raise NotImplementedError

    def forward(self, features: list[Tensor], masks: Tensor | None, image_size: tuple[int, int]) -> Tokens:
        """Project, embed and flatten.

        Args:
            features: the backbone's levels, (B, C_l, H_l, W_l).
            masks: (B, H, W) bool, True on padding; None where there is none.
            image_size: (H, W) of the padded images.
        """
        levels: list[Tensor] = []
        for index, projection in enumerate(self.projections):
            if index < len(features):
                levels.append(projection(features[index]))
            else:
                levels.append(projection(features[-1] if index == len(features) else levels[-1]))
        return self.place(levels, masks, image_size)

    def place(self, levels: list[Tensor], masks: Tensor | None, image_size: tuple[int, int]) -> Tokens:
        """The levels (B, C, H_l, W_l) as tokens that know where they are; the others as for `forward`."""
        batch = len(levels[0])
        sizes = [(level.shape[-2], level.shape[-1]) for level in levels]
        if masks is None:
            paddings = [level.new_zeros((batch, *size), dtype=torch.bool) for level, size in zip(levels, sizes)]
        else:
            paddings = [F.interpolate(masks[:, None].float(), size=size)[:, 0] > 0.5 for size in sizes]
        exact = full_type(levels[0].dtype)  # a half type could not count the pixels
        positions = [self.embed(padding, level, exact) for level, padding in enumerate(paddings)]
        # The valid area is read off the first row and column, as padding only ever lies right and below.
        valid = [torch.stack([(~p[:, 0]).sum(1), (~p[:, :, 0]).sum(1)], -1) for p in paddings]
        shapes, starts = level_geometry(sizes, levels[0].device)
        if masks is None:
            image_sizes = written(image_size[::-1], levels[0].device).expand(batch, -1)
        else:
            image_sizes = torch.stack([(~masks[:, 0]).sum(1), (~masks[:, :, 0]).sum(1)], -1)
        return Tokens(
            features=self.flatten(levels),
            positions=self.flatten(positions),
            padding=torch.cat([padding.flatten(1) for padding in paddings], 1),
            sizes=sizes,
            spatial_shapes=shapes,
            level_start_index=starts,
            valid_sizes=torch.stack(valid, 1).to(exact),
            padded=masks is not None,
            image_sizes=image_sizes.to(exact),
            finest_stride=level_stride(image_size, sizes[0]),
            padded_size=(image_size[0], image_size[1]),
        )

    @staticmethod
    def flatten(levels: list[Tensor]) -> Tensor:
        """(B, C, H_l, W_l) of each level -> (B, S, C), row by row, fine to coarse."""
        return torch.cat([level.flatten(2).transpose(1, 2) for level in levels], 1)


class ProjectionNeck(Pyramid):
    """Group norm, and a normalised sine embedding beside one learned for each level (Deformable DETR).

    Args:
        dimensions: `num_levels` levels of `hidden_dim` channels.
        in_channels: channels of the backbone's levels, fine to coarse.
        position_temperature: of the sine embedding.
        position_offset: see `grid_positions`.
        projection_bias: whether the convolutions add a bias before their norm.
    """

    def __init__(
        self,
        dimensions: Dimensions,
        in_channels: list[int],
        position_temperature: float,
        position_offset: float,
        projection_bias: bool,
    ) -> None:
        super().__init__()
        width = dimensions.hidden_dim
        self.width, self.position_temperature, self.position_offset = (
            width,
            position_temperature,
            position_offset,
        )
        convolutions = pyramid_convolutions(dimensions, in_channels, projection_bias)
        for convolution in convolutions:
            nn.init.xavier_uniform_(convolution.weight)
            if convolution.bias is not None:
                nn.init.zeros_(convolution.bias)
        self.projections = nn.ModuleList(nn.Sequential(conv, nn.GroupNorm(32, width)) for conv in convolutions)
        self.level_embed = nn.Parameter(torch.randn(dimensions.num_levels, width))

    def embed(self, padding: Tensor, level: int, dtype: torch.dtype) -> Tensor:
        """Of the valid area, so that every image spans the same angles; (B, H, W) -> (B, C, H, W)."""
        places = grid_positions(padding, self.width, self.position_temperature, self.position_offset, dtype)
        return places + self.level_embed[level][:, None, None]


class BatchNormNeck(Pyramid):
    """Batch norm and no biases; a sine embedding of the cells' indices, alike on every level (RT-DETR).

    Args:
        dimensions: `num_levels` levels of `hidden_dim` channels.
        in_channels: channels of the backbone's levels, fine to coarse.
        position_temperature: of the sine embedding.
    """

    def __init__(self, dimensions: Dimensions, in_channels: list[int], position_temperature: float) -> None:
        super().__init__()
        self.width, self.position_temperature = dimensions.hidden_dim, position_temperature
        convolutions = pyramid_convolutions(dimensions, in_channels, bias=False)
        self.projections = nn.ModuleList(nn.Sequential(conv, nn.BatchNorm2d(self.width)) for conv in convolutions)

    def embed(self, padding: Tensor, level: int, dtype: torch.dtype) -> Tensor:
        """Row and column, which padding does not change; (B, H, W) -> (B, C, H, W)."""
        return index_positions(padding, self.width, self.position_temperature, dtype)

    def place(self, levels: list[Tensor], masks: Tensor | None, image_size: tuple[int, int]) -> Tokens:
        """As of every pyramid, with levels of (B, C, H_l, W_l) that a batch norm gave."""
        return super().place([with_whole_gradient(level) for level in levels], masks, image_size)


def pyramid_convolutions(dimensions: Dimensions, in_channels: list[int], bias: bool) -> list[nn.Conv2d]:
    """One for each level: 1x1 from each of the backbone's, then 3x3 ones that halve the map."""
    width, extra = dimensions.hidden_dim, dimensions.num_levels - len(in_channels)
    convolutions = [nn.Conv2d(channels, width, 1, bias=bias) for channels in in_channels]
    further = [in_channels[-1], *[width] * extra][:extra]
    return [*convolutions, *(nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=bias) for channels in further)]


def level_stride(image_size: tuple[int, int], size: tuple[int, int]) -> int:
    """Pixels between cells, a power of two: each halving on the way rounds up."""
    ratio = max(pixels / cells for pixels, cells in zip(image_size, size))
    return 2 ** math.ceil(math.log2(ratio))


def level_geometry(sizes: list[tuple[int, int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """(L, 2) sizes and (L,) start index of each level, on the device that reads them."""
    starts = [0]
    for height, width in sizes[:-1]:
        starts.append(starts[-1] + height * width)
    shapes = written([cells for size in sizes for cells in size], device).view(-1, 2)
    return shapes, written(starts, device)
