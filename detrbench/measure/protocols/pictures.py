"""Which images are looked into. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PicturesProtocol:
    """Which images are looked into, and how much is kept of each.

    Args:
        images: the first so many of the evaluated images that hold two objects or more.
        longest: side of the stored image in pixels; smaller images stay as they are.
        detections: best ones that are stored.
        objects: whose queries' sampling points are stored: the largest ones.
        queries: whose way through the decoder is stored.
    """

    name: str
    title: str
    images: int = 2
    longest: int = 480
    detections: int = 50
    objects: int = 3
    queries: int = 24
    version: int = 1

    @property
    def convention(self) -> str:
        """The rule in words."""
        return (
            f"the first {self.images} evaluated images with two objects or more, batch 1 without padding; the best "
            f"{self.detections} detections, sampling points for the {self.objects} largest objects, the way of the "
            f"{self.queries} queries that come nearest to the largest one"
        )


PROTOCOLS = {"common": PicturesProtocol("common", "what happens inside, on a few images")}
