"""How much of the decoder's attention falls on kept tokens. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DamProtocol:
    """Sparse DETR's Corr.

    Attributes:
        top_share: only so large a share of an image's unpadded tokens counts, those that the decoder attends to most;
            1 for all.
    """

    name: str
    title: str
    top_share: float = 1.0
    version: int = 1

    @property
    def convention(self) -> str:
        """The rule in words."""
        of = "" if self.top_share == 1 else f" on the {self.top_share:.0%} of an image's tokens that have most of it"
        return (
            f"share (0..1) of the decoder's attention mass{of}, splatted at location x (W, H) without half-pixel shift "
            "and summed over layers and heads, on tokens that the encoder kept; per image, then mean over images; "
            "not a Pearson correlation"
        )


_ALL = (
    DamProtocol("common", "Sparse DETR's Corr as its code computes it"),
    DamProtocol("focus_table3", "the same over the decoder's top 10 % of tokens (Focus-DETR, Table 3)", top_share=0.1),
)
PROTOCOLS = {protocol.name: protocol for protocol in _ALL}
