"""How queries gather around objects. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class QueriesProtocol:
    """How queries gather around objects: DAC-DETR's Figures 3 and 1.

    Args:
        thresholds: of the matching score.
        nearest: of so many queries the distance to an object is taken; DAC-DETR trains at most six for each.
    """

    name: str
    title: str
    thresholds: tuple[float, ...] = (0.6, 0.7, 0.8)
    nearest: int = 6
    version: int = 1

    @property
    def convention(self) -> str:
        """The rule in words."""
        return (
            "matching score: 0.7 x IoU + 0.3 x probability of the object's class, of the boxes and logits that "
            "inference returns; queries above the threshold, mean over objects, crowd left out. Distances in percent "
            "of the image's diagonal, between centres of the boxes that each layer predicts (layer 0: where queries "
            f"start): of an object to its {self.nearest} nearest queries, mean over objects; of a query to the nearest "
            "other one, mean over queries; with the decoder's self-attention, and without it in all layers. "
            "Intervals: bootstrap over images"
        )


PROTOCOLS = {"common": QueriesProtocol("common", "DAC-DETR's Figures 3 and 1")}
