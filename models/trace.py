"""What happened inside a detector during one forward, for measurements and pictures.

What the parts hand on anyway is read from the output. What they would throw away (where encoder layers sample, which
tokens a dual attention chooses) is caught by hooks that are there only while somebody asks: a forward without a trace
runs the same code and keeps nothing more. Shapes: B images, S tokens, Q queries, M heads, L levels, P points.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from detrbench.models.attention import DeformableAttention, KeyAwareAttention, Sampled
from detrbench.models.encoders.dual_attention import ObjectTokens

if TYPE_CHECKING:
    from detrbench.models.detector import DetectorOutput


class EncoderSampling(NamedTuple):
    """Where one encoder layer looked; its n queries are the tokens it updates, in the order of `Trace.kept_tokens`.

    Of a padded batch there are more: surplus ones, which only the larger images keep, and those on padding.

    Attributes:
        reference_points: (B, n, L, 2) the query's own place as a fraction of each padded level.
        sampling_locations: (B, n, M, L, P, 2) as a fraction of the padded level.
        attention_weights: (B, n, M, L, P), which add up to 1 over levels and points.
    """

    reference_points: Tensor
    sampling_locations: Tensor
    attention_weights: Tensor


@dataclass
class Trace:
    """What happened inside.

    Attributes:
        kept_tokens: `[encoder layer][image]` -> indices of the tokens that the image really keeps.
        scores: (B, S) by which tokens were kept (Sparse DETR's scores, Focus-DETR's foreground, Salience-DETR's
            salience), or None where all are.
        sampling_locations: by decoder layer, (B, Q, M, L, P, 2) as a fraction of the padded level.
        attention_weights: by decoder layer, (B, Q, M, L, P).
        reference_points: by decoder layer, (B, Q, 2 or 4) of the valid area: where the layer's queries start.
        spatial_shapes: (height, width) of each level.
        padding: (B, S) bool, True on padding.
        encoder_sampling: by encoder layer; empty for an encoder without sampled attention.
        object_tokens: `[encoder layer][image]` -> indices of the tokens that a dual attention lets attend to each
            other (Focus-DETR, section 3.3); empty for an encoder without one.
    """

    kept_tokens: list[list[Tensor]]
    scores: Tensor | None
    sampling_locations: list[Tensor]
    attention_weights: list[Tensor]
    reference_points: list[Tensor]
    spatial_shapes: list[tuple[int, int]]
    padding: Tensor
    encoder_sampling: list[EncoderSampling] = field(default_factory=list)
    object_tokens: list[list[Tensor]] = field(default_factory=list)

    def by_level(self, values: Tensor) -> list[Tensor]:
        """(B, S) values of all tokens -> one (B, height, width) map a level."""
        sizes = [height * width for height, width in self.spatial_shapes]
        maps = values.split(sizes, 1)
        return [level.unflatten(1, shape) for level, shape in zip(maps, self.spatial_shapes)]


class Recorder:
    """Catches what the layers of an encoder compute and nobody keeps."""

    def __init__(self) -> None:
        self.sampling: list[EncoderSampling] = []
        self.object_rows: list[Tensor] = []  # by layer, (B, n) rows among the kept tokens

    @contextlib.contextmanager
    def watching(self, encoder: nn.Module) -> Iterator[None]:
        """Listens to the encoder inside the block, and no longer than that."""
        handles = []
        for module in encoder.modules():
            if isinstance(module, DeformableAttention | KeyAwareAttention):
                handles.append(module.register_forward_hook(self._keep_sampling))
            elif isinstance(module, ObjectTokens):
                handles.append(module.register_forward_hook(self._keep_rows))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _keep_sampling(self, module: nn.Module, inputs: tuple[Any, ...], sampled: Sampled) -> None:
        self.sampling.append(EncoderSampling(inputs[1], sampled.points.locations, sampled.points.weights))

    def _keep_rows(self, module: nn.Module, inputs: tuple[Any, ...], rows: Tensor) -> None:
        self.object_rows.append(rows)


def trace_of(out: DetectorOutput, recorder: Recorder) -> Trace:
    """The trace of a forward whose encoder the recorder watched."""
    kept, padding = out.encoded.kept_tokens, out.tokens.padding
    if kept is None:
        starts = out.encoded.updated_from or []
        kept = [[torch.arange(start, padding.shape[1], device=padding.device)] * len(padding) for start in starts]
    return Trace(
        kept_tokens=[off_padding(layer, padding) for layer in kept],
        scores=out.encoded.scores,
        sampling_locations=out.decoded.sampling_locations,
        attention_weights=out.decoded.attention_weights,
        reference_points=out.decoded.reference_points,
        spatial_shapes=out.tokens.sizes,
        padding=padding,
        encoder_sampling=recorder.sampling,
        object_tokens=[
            # Rows past an image's own count are the surplus that larger images of its batch force on it.
            off_padding([tokens[chosen[chosen < len(tokens)]] for tokens, chosen in zip(layer, rows)], padding)
            for layer, rows in zip(kept, recorder.object_rows)
        ],
    )


def off_padding(layer: list[Tensor], padding: Tensor) -> list[Tensor]:
    """Of each image's tokens those that are not on padding (B, S), where some encoders update tokens too."""
    return [indices[~row[indices]] for indices, row in zip(layer, padding)]
