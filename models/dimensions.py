"""The sizes that all parts of a detector share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dimensions:
    """See `parts.COMMON` for what each one means.

    `further_queries` is how many queries training adds behind the others, for the part that supervises them.
    """

    hidden_dim: int
    num_heads: int
    num_levels: int
    num_points: int
    ffn_dim: int
    dropout: float
    num_encoder_layers: int
    num_decoder_layers: int
    num_queries: int
    num_classes: int
    logit_eps: float
    key_aware: bool
    further_queries: int
