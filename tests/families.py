"""Every detector at a size that trains in seconds, for tests that hold for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from detrbench import models
from detrbench.models.detector import Detector

SMALL = {
    "width": 16,
    "hidden_dim": 64,
    "num_heads": 4,
    "ffn_dim": 128,
    "dropout": 0.0,
    "num_queries": 30,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
}
# What some need beside that to be small: a share for each of two layers, further queries for which there are tokens,
# one block of two layers.
NEEDED: Mapping[str, Mapping[str, Any]] = {
    "focus": {"keep_ratios": [0.5, 0.3]},
    "h_detr": {"one_to_many_queries": 60, "one_to_many_repeats": 3},
    "lite": {"blocks": 1},
    "salience": {"layer_ratios": [1.0, 0.5]},
}
FAMILIES = [name.removesuffix("_tiny") for name in models.names() if name.endswith("_tiny")]


def small(family: str, num_classes: int) -> Detector:
    """The family's detector with the tiny backbone, with random weights that are always the same."""
    torch.manual_seed(0)
    needed = next((options for start, options in NEEDED.items() if family.startswith(start)), {})
    return models.create(f"{family}_tiny", **{**SMALL, **needed, "num_classes": num_classes})
