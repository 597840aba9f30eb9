"""How much of the decoder's attention falls on kept tokens. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DamProtocol:
    """Sparse DETR's Corr."""

    name: str
    title: str
    version: int = 1

    @property
    def convention(self) -> str:
        """The rule in words."""
        return (
            "share (0..1) of the decoder's attention mass, splatted at location x (W, H) without half-pixel shift and "
            "summed over layers and heads, on tokens that the encoder kept; per image, then mean over images; "
            "not a Pearson correlation"
        )


PROTOCOLS = {"common": DamProtocol("common", "Sparse DETR's Corr as its code computes it")}
