"""Multiply-adds of the sampled operations, for every counter (torch's, fvcore's, our own)."""

from __future__ import annotations

import math
from collections.abc import Sequence

BILINEAR_MACS = 4  # one for each corner, per sampled channel
WEIGHT_MACS = 1  # the attention weight
LOGIT_MACS = 1  # query times key


def sampled_channels(value_shape: Sequence[int], locations_shape: Sequence[int]) -> int:
    """How many numbers are interpolated: N * Q * M * L * P * D.

    Args:
        value_shape: (N, S, M, D).
        locations_shape: (N, Q, M, L, P, 2).
    """
    return math.prod(locations_shape[:-1]) * value_shape[-1]


def msda_macs(value_shape: Sequence[int], locations_shape: Sequence[int]) -> int:
    """Multiply-adds of one forward: interpolation and weighting. The shapes are those of `sampled_channels`."""
    return (BILINEAR_MACS + WEIGHT_MACS) * sampled_channels(value_shape, locations_shape)


def key_aware_macs(value_shape: Sequence[int], locations_shape: Sequence[int]) -> int:
    """Multiply-adds of one key-aware forward: interpolation, logits, weighting; as torch counts attention, without its
    softmax. The shapes are those of `sampled_channels`.
    """
    return (BILINEAR_MACS + LOGIT_MACS + WEIGHT_MACS) * sampled_channels(value_shape, locations_shape)


def grid_sample_macs(value_shape: Sequence[int], locations_shape: Sequence[int]) -> int:
    """Multiply-adds of the interpolation alone, which is all that fvcore counts of `grid_sample`."""
    return BILINEAR_MACS * sampled_channels(value_shape, locations_shape)
