"""RT-DETR's decoder (Zhao et al., CVPR 2024), and what RT-DETRv2 (Lv et al., 2024) makes of its sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from detrbench.models.attention import AttentionByLevel, sampled_attention
from detrbench.models.decoders.deformable import DeformableDecoder
from detrbench.models.dimensions import Dimensions
from detrbench.models.layers import MLP
from detrbench.models.tokens import Queries


class RtDetrDecoder(DeformableDecoder):
    """Makes each layer's query position from the box that the layer starts at, by a small network and no sine.

    Args:
        dimensions: widths and the number of layers.
        look_forward_twice: see `DeformableDecoder`.
        level_points: sampling points of a head on each level, fine to coarse; where the encoder leaves fewer levels,
            the last ones hold. None for `num_points` on each.
        sampling: "bilinear" between four cells, or the "nearest" cell alone, whose offsets are not trained.
        self_attention_first: see `DeformableDecoder`.
    """

    def __init__(
        self,
        dimensions: Dimensions,
        look_forward_twice: bool,
        level_points: Sequence[int] | None,
        sampling: str,
        self_attention_first: bool,
    ) -> None:
        how = self_attention_first, _attention(level_points, sampling)
        super().__init__(dimensions, True, look_forward_twice, *how)
        width = dimensions.hidden_dim
        self.box_position = MLP(4, 2 * width, width, 2).xavier()

    def query_position(self, layer: int, queries: Queries, content: Tensor, reference_points: Tensor) -> Tensor:
        """(B, Q, C) from the box alone, as a fraction of the finest padded level."""
        return self.box_position(reference_points[:, :, 0])


def _attention(level_points: Sequence[int] | None, sampling: str) -> Callable[[Dimensions], nn.Module]:
    """The one operation where levels are alike."""
    if level_points is None and sampling == "bilinear":
        return sampled_attention
    return partial(AttentionByLevel, level_points=level_points, nearest=sampling == "nearest")
