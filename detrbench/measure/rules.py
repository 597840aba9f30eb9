"""What operations cost: our rule, which counts every one, and the rules of the papers' counters. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class CountingRule:
    """What one unit of each kind of work costs, in multiply-adds; a kind that is not named costs nothing.

    Kinds and their units (`counters` produces them): "matmul", "convolution" (multiply-adds); "deformable_attention",
    "key_aware_sampling" (sampled channels: queries x heads x levels x points x channels of a head); "norm" (layer and
    group norms), "batch_norm", "frozen_batch_norm", "softmax", "grid_sample", "nearest", "bilinear", "elementwise"
    (elements of the output); "reduction" (elements of the input).
    """

    name: str
    text: str
    costs: Mapping[str, float]


EVERY_OP = CountingRule(
    "every_op",
    "1 a multiply-add; deformable attention 5 a sampled channel (4 bilinear, 1 weighting); norms 5, softmax 5, "
    "batch norm 2, bilinear resize and grid_sample 4, arithmetic and activations 1 an output element; reductions 1 an "
    "input element; biases are part of their product; moving, comparing, sorting and indexing 0",
    {
        "matmul": 1,
        "convolution": 1,
        "deformable_attention": 5,
        "key_aware_sampling": 4,
        "norm": 5,
        "batch_norm": 2,
        "frozen_batch_norm": 2,
        "softmax": 5,
        "grid_sample": 4,
        "bilinear": 4,
        "elementwise": 1,
        "reduction": 1,
    },
)

# fvcore's default handles, as the official repositories run them on plain PyTorch deformable attention: grid_sample
# is counted there, the weighting of the samples is not.
FVCORE = CountingRule(
    "fvcore",
    "fvcore's handles: 1 a multiply-add; layer and group norms 5, sampling of the deformable attention and bilinear "
    "resize 4, nearest resize 1 an output element; everything else 0",
    {
        "matmul": 1,
        "convolution": 1,
        "deformable_attention": 4,
        "key_aware_sampling": 4,
        "norm": 5,
        "batch_norm": 2,
        "grid_sample": 4,
        "nearest": 1,
        "bilinear": 4,
    },
)

PRODUCTS = CountingRule(
    "products",
    "1 a multiply-add of convolutions and matrix products; everything else 0",
    {"matmul": 1, "convolution": 1},
)

# Lite DETR's key-aware attention samples keys and values one after the other, though they are the same; ours once.
FVCORE_KEYS_APART = CountingRule(
    "fvcore_keys_apart",
    FVCORE.text + "; key-aware attention as if it sampled keys and values apart",
    {**FVCORE.costs, "key_aware_sampling": 8},
)

# detrex's tool is fvcore too, but detectron2's frozen batch norm is a call that fvcore knows (2 an element), and with
# the compiled op the deformable attention itself is not seen.
DETREX_SAMPLED = CountingRule(
    "detrex_sampled",
    FVCORE.text + "; frozen batch norm 2 an element",
    {**FVCORE.costs, "frozen_batch_norm": 2},
)
DETREX = CountingRule(
    "detrex",
    FVCORE.text.replace("sampling of the deformable attention and ", "")
    + "; frozen batch norm 2 an element; the compiled deformable attention op 0",
    {**DETREX_SAMPLED.costs, "deformable_attention": 0, "key_aware_sampling": 0, "grid_sample": 0},
)

# RT-DETR's tool adds up what PyTorch's profiler knows: two operations for a multiply-add. That knows additions and
# multiplications too (0.2 % at most) and no fused attention (0.7 % at most); here it is the other way round.
TWICE = CountingRule(
    "twice", "2 a multiply-add of convolutions and matrix products; everything else 0", {"matmul": 2, "convolution": 2}
)
