"""Sparse DETR's Corr over a data set: how much of the decoder's attention falls on the tokens the encoder kept.

The map and the share are `detrbench.models.dam`'s; this averages them over images. The official code takes, in a batch
of unequal images, some surplus tokens of the smaller ones for kept; here they never are.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from detrbench import statistics
from detrbench.data import Dataset
from detrbench.data.loading import Batch
from detrbench.data.transforms import Transform
from detrbench.measure.inference import Progress, over_images
from detrbench.measure.protocols.dam import DamProtocol
from detrbench.models.dam import corr, decoder_attention_map, kept_mask
from detrbench.models.detector import DetectorOutput
from detrbench.models.trace import Trace
from detrbench.results.records import DamCorrelation


def measure(
    detector: nn.Module,
    dataset: Dataset,
    protocol: DamProtocol,
    device: torch.device | str = "cpu",
    batch_size: int = 1,
    transform: Transform | None = None,
    progress: Progress | None = None,
) -> DamCorrelation:
    """Corr of a detector on a data set; arguments as `inference.over_images` takes them.

    A level whose attention is zero on every image has None.
    """
    rows: list[list[float]] = []

    def see(out: DetectorOutput, batch: Batch) -> None:
        assert out.trace is not None
        rows.extend(of_trace(out.trace, protocol.top_share).tolist())

    over_images(detector, dataset, see, device, batch_size, transform, progress, trace=True)
    return summarise(np.array(rows), protocol)


def of_trace(trace: Trace, top_share: float = 1.0) -> Tensor:
    """(B, 2 + L): of each image Corr, the share of its unpadded tokens that are kept, and Corr on each level.

    Args:
        trace: of a forward.
        top_share: see `DamProtocol`.
    """
    attention = decoder_attention_map(trace.sampling_locations, trace.attention_weights, trace.spatial_shapes)
    if top_share < 1:
        attention = _most_attended(attention, trace.padding, top_share)
    # A token counts as kept if any encoder layer updates it.
    masks = [kept_mask(layer, attention.shape[1]) for layer in trace.kept_tokens]
    kept = torch.stack(masks).any(0)
    sizes = [height * width for height, width in trace.spatial_shapes]
    levels = [corr(a, k) for a, k in zip(attention.split(sizes, 1), kept.split(sizes, 1))]
    fraction = kept.sum(1) / (~trace.padding).sum(1)
    return torch.stack([corr(attention, kept), fraction.to(attention), *levels], 1)


def _most_attended(attention: Tensor, padding: Tensor, share: float) -> Tensor:
    """The (B, S) map with zero on all but that share of each image's unpadded tokens, one at least."""
    only = torch.zeros_like(attention)
    ranked = attention.masked_fill(padding, -1).argsort(dim=1, descending=True, stable=True)
    for row, tokens, count in zip(only, ranked, (~padding).sum(1).tolist()):
        row[tokens[: max(int(share * count), 1)]] = 1
    return attention * only


def summarise(rows: np.ndarray, protocol: DamProtocol) -> DamCorrelation:
    """From (images, 2 + L), as `of_trace` gives them, to the record."""
    shares, levels = rows[:, 0], rows[:, 2:]
    by_level = [float(np.nanmean(level)) if not np.isnan(level).all() else None for level in levels.T]
    return DamCorrelation(
        protocol=protocol.name,
        protocol_version=protocol.version,
        convention=protocol.convention,
        corr=statistics.bootstrap_mean(shares, "share"),
        std=float(np.nanstd(shares, ddof=1)) if np.count_nonzero(~np.isnan(shares)) > 1 else math.nan,
        per_level=by_level,
        kept_fraction=float(rows[:, 1].mean()),
    )
