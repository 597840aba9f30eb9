"""What flows between neck, encoder, query selection and decoder.

Shapes: B images, S tokens (all levels, fine to coarse, row-major), L levels, C channels, Q queries, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from detrbench.models import ops

# A proposal is a candidate only if its box keeps this far from the border of [0, 1].
PROPOSAL_MARGIN = 0.01
# Side of the proposal on the finest level, as a fraction of the image; doubled on each coarser level.
PROPOSAL_SIDE = 0.05


# What a forward computes: "final" only what inference needs, "all" every layer's predictions and what else is trained.
Outputs = Literal["final", "all"]


@dataclass
class Tokens:
    """The flattened feature pyramid of a batch.

    Attributes:
        features: (B, S, C).
        positions: (B, S, C) sine embedding plus level embedding; added to queries, never to values.
        padding: (B, S) bool, True on padding.
        sizes: (height, width) of each level.
        spatial_shapes: (L, 2) int64, the same as a tensor.
        level_start_index: (L,) int64, the first token of each level.
        valid_sizes: (B, L, 2) width and height of the part that is no padding, in cells.
        padded: False where the caller said that there is no padding.
        image_sizes: (B, 2) width and height of the part that is no padding, in pixels.
        finest_stride: pixels between cells of the first level; doubled on each coarser level.
        padded_size: (height, width) of the padded images, in pixels.
    """

    features: Tensor
    positions: Tensor
    padding: Tensor
    sizes: list[tuple[int, int]]
    spatial_shapes: Tensor
    level_start_index: Tensor
    valid_sizes: Tensor
    padded: bool
    image_sizes: Tensor
    finest_stride: int
    padded_size: tuple[int, int]
    _valid_by_level: list[list[int]] | None = field(default=None, repr=False)

    @property
    def valid_ratios(self) -> Tensor:
        """(B, L, 2) valid share of each level's width and height."""
        return self.valid_sizes / self.spatial_shapes.flip(-1).to(self.valid_sizes)

    @property
    def cells(self) -> list[int]:
        """Tokens of each level, padding included."""
        return [height * width for height, width in self.sizes]

    @property
    def valid_by_level(self) -> list[list[int]]:
        """Tokens of each image and level that are no padding. Waits for the device once where there is padding."""
        if not self.padded:
            return [self.cells] * len(self.padding)
        if self._valid_by_level is None:
            counts = [level.sum(1) for level in (~self.padding).split(self.cells, 1)]
            self._valid_by_level = torch.stack(counts, 1).tolist()
        return self._valid_by_level

    @property
    def num_valid(self) -> list[int]:
        """Tokens of each image that are no padding; waits as `valid_by_level` does."""
        return [sum(levels) for levels in self.valid_by_level]

    def without_finest(self, levels: int) -> Tokens:
        """The pyramid without its first levels."""
        start = sum(self.cells[:levels])
        return replace(
            self,
            features=self.features[:, start:],
            positions=self.positions[:, start:],
            padding=self.padding[:, start:],
            sizes=self.sizes[levels:],
            spatial_shapes=self.spatial_shapes[levels:],
            level_start_index=self.level_start_index[levels:] - start,
            valid_sizes=self.valid_sizes[:, levels:],
            finest_stride=self.finest_stride * 2**levels,
            _valid_by_level=None,
        )

    def cell_centres(self) -> Tensor:
        """(B, S, 2) x, y of each token's centre, as a fraction of the valid area."""
        centres = []
        for level, (height, width) in enumerate(self.sizes):
            y = torch.arange(height, device=self.features.device, dtype=self.valid_sizes.dtype) + 0.5
            x = torch.arange(width, device=self.features.device, dtype=self.valid_sizes.dtype) + 0.5
            grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1)  # (H, W, 2)
            centres.append(grid.flatten(0, 1) / self.valid_sizes[:, level, None])
        return torch.cat(centres, 1)

    def encoder_reference_points(self) -> Tensor:
        """(B, S, L, 2) each token's centre, as a fraction of each target level's padded size."""
        return self.cell_centres()[:, :, None] * self.valid_ratios[:, None]

    def proposals(self) -> tuple[Tensor, Tensor]:
        """One box a token: its centre, with a side that doubles from level to level.

        Returns:
            (B, S, 4) logits of cx, cy, w, h, infinite where the token is no candidate; (B, S) bool, True where it is
            none (padding, or too near the border).
        """
        centres = self.cell_centres()
        sides = torch.cat(
            [centres.new_full((h * w,), PROPOSAL_SIDE * 2**level) for level, (h, w) in enumerate(self.sizes)]
        )
        boxes = torch.cat([centres, sides[None, :, None].expand(len(centres), -1, 2)], -1)
        inside = ((boxes > PROPOSAL_MARGIN) & (boxes < 1 - PROPOSAL_MARGIN)).all(-1)
        excluded = self.padding | ~inside
        logits = torch.log(boxes / (1 - boxes)).masked_fill(excluded[..., None], float("inf"))
        return logits, excluded


@dataclass
class Prediction:
    """Class logits (B, Q, K) and boxes (B, Q, 4): cx, cy, w, h in [0, 1] of the valid area."""

    logits: Tensor
    boxes: Tensor

    def of(self, queries: slice) -> Prediction:
        """Of some of the queries only."""
        return Prediction(self.logits[:, queries], self.boxes[:, queries])


@dataclass
class Encoded:
    """What an encoder returns.

    Attributes:
        memory: (B, S, C) what the decoder attends to.
        kept_tokens: for each layer and image the indices of the tokens that were updated; None where all are.
        scores: (B, S) score by which tokens were kept, or None.
        auxiliary: predictions of the encoder's own auxiliary heads, by layer.
        objectness: what the head that ranks tokens predicts for all of them, where it is trained to detect.
        foreground: (B, S) the scores as they were predicted, where they are trained with the objects' boxes.
        updated_from: for each layer the first token that is updated, where all behind it are too; None otherwise.
        tokens: the geometry of `memory` where that is not the whole pyramid.
    """

    memory: Tensor
    kept_tokens: list[list[Tensor]] | None = None
    scores: Tensor | None = None
    auxiliary: list[Prediction] = field(default_factory=list)
    objectness: Prediction | None = None
    foreground: Tensor | None = None
    updated_from: list[int] | None = None
    tokens: Tokens | None = None


@dataclass
class Queries:
    """What query selection hands to the decoder.

    Attributes:
        content: (B, Q, C).
        position: (B, Q, C) query position embedding; None where the decoder is to make it from the boxes.
        reference_points: (B, Q, 2) x, y or (B, Q, 4) cx, cy, w, h, in [0, 1] of the valid area.
        proposals: the proposal head's prediction, where there is one.
        blocked: (Q, Q) bool, True where the row must not attend to the column; None where all may see all.
        noised: how many queries at the front are noised objects; see `denoising`.
        noised_groups: into how many groups those fall.
        one_to_many: how many queries at the back are answered for by `one_to_many`.
    """

    content: Tensor
    position: Tensor | None
    reference_points: Tensor
    proposals: Prediction | None = None
    blocked: Tensor | None = None
    noised: int = 0
    noised_groups: int = 0
    one_to_many: int = 0

    @property
    def ordinary(self) -> slice:
        """The queries between those two groups, which inference has too."""
        return slice(self.noised, self.content.shape[1] - self.one_to_many)


@dataclass
class SampledPoints:
    """Where queries sampled and with which weights: worked out only for who asks, since the op does without.

    Attributes:
        reference_points: (B, Q, L, 2) x, y or (B, Q, L, 4) cx, cy, w, h, as fractions of the padded level.
        offsets: (B, Q, M, L, P, 2) around them, as `ops.msda_from_offsets` takes them.
        spatial_shapes: (L, 2) int64.
        logits: (B, Q, M, L, P) of the weights; None where the op gave the weights themselves.
        given_weights: (B, Q, M, L, P), or None.
    """

    reference_points: Tensor
    offsets: Tensor
    spatial_shapes: Tensor
    logits: Tensor | None = None
    given_weights: Tensor | None = None

    @property
    def locations(self) -> Tensor:
        """(B, Q, M, L, P, 2) as fractions of the padded level."""
        return ops.sampling_locations(self.spatial_shapes, self.offsets, self.reference_points)

    @property
    def weights(self) -> Tensor:
        """(B, Q, M, L, P), which add up to 1 over levels and points."""
        if self.given_weights is not None:
            return self.given_weights
        assert self.logits is not None
        return ops.sampling_weights(self.logits)

    def of(self, queries: slice) -> SampledPoints:
        """Of some of the queries only."""
        return replace(
            self,
            reference_points=self.reference_points[:, queries],
            offsets=self.offsets[:, queries],
            logits=None if self.logits is None else self.logits[:, queries],
            given_weights=None if self.given_weights is None else self.given_weights[:, queries],
        )


@dataclass
class PointsByLevel:
    """The same of an attention that need not have as many points on every level.

    Attributes:
        levels: of each level locations (B, Q, M, P_l, 2), as fractions of it, and weights (B, Q, M, P_l).
    """

    levels: list[tuple[Tensor, Tensor]]

    @property
    def locations(self) -> Tensor:
        """(B, Q, M, L, P, 2) for the most points of a level; the others have their first place again."""
        return torch.stack([_filled(places, self.most, -2, places[..., :1, :]) for places, _ in self.levels], -3)

    @property
    def weights(self) -> Tensor:
        """(B, Q, M, L, P), zero where a level has fewer points."""
        first = [weights[..., :1] * 0 for _, weights in self.levels]
        return torch.stack([_filled(w, self.most, -1, zero) for (_, w), zero in zip(self.levels, first)], -2)

    @property
    def most(self) -> int:
        """The most points of a level."""
        return max(weights.shape[-1] for _, weights in self.levels)

    def of(self, queries: slice) -> PointsByLevel:
        """Of some of the queries only."""
        return PointsByLevel([(places[:, queries], weights[:, queries]) for places, weights in self.levels])


def _filled(values: Tensor, count: int, dim: int, filling: Tensor) -> Tensor:
    """`count` along `dim`, the missing ones being `filling`, which is one long there."""
    return torch.cat([values, *[filling] * (count - values.shape[dim])], dim)


Points = SampledPoints | PointsByLevel


@dataclass
class Decoded:
    """What a decoder returns, by layer.

    Attributes:
        states: (B, Q, C), for those layers that were asked for (the last one at least).
        reference_points: the reference that the layer's box is relative to, (B, Q, 2 or 4), for every layer.
        points: where the layer sampled the memory, for every layer.
        inner: (B, Q, C), the queries between the layer's two attentions, for the layers that have states.
    """

    states: list[Tensor]
    reference_points: list[Tensor]
    points: list[Points]
    inner: list[Tensor] = field(default_factory=list)

    @property
    def sampling_locations(self) -> list[Tensor]:
        """(B, Q, M, L, P, 2) as a fraction of the padded level, for every layer."""
        return [points.locations for points in self.points]

    @property
    def attention_weights(self) -> list[Tensor]:
        """(B, Q, M, L, P), for every layer."""
        return [points.weights for points in self.points]

    def of(self, queries: slice) -> Decoded:
        """Of some of the queries only."""
        return Decoded(
            [state[:, queries] for state in self.states],
            [reference[:, queries] for reference in self.reference_points],
            [points.of(queries) for points in self.points],
            [state[:, queries] for state in self.inner],
        )


def gather_tokens(sequence: Tensor, indices: Tensor) -> Tensor:
    """(B, S, C), (B, n) -> (B, n, C)."""
    return sequence.gather(1, indices[..., None].expand(-1, -1, sequence.shape[-1]))
