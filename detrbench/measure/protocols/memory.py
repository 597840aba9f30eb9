"""Of what memory is taken. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar


@dataclass(frozen=True)
class MemoryProtocol:
    """One forward in inference mode, and one training step, on random images of that size."""

    name: str
    title: str
    height: int = 800
    width: int = 1066
    batch_size: int = 1
    objects: int = 10  # targets an image in the training step
    version: int = 1
    fits_external: ClassVar[bool] = True

    @property
    def convention(self) -> str:
        """The rule in words."""
        return (
            f"MiB (2**20 bytes), batch {self.batch_size} of {self.height}x{self.width}, float32; PyTorch's allocator, "
            f"above weights and images; a training step is forward with every auxiliary output, loss on {self.objects} "
            "objects an image, backward and AdamW, gradients and moments included"
        )

    def at(self, height: int, width: int) -> MemoryProtocol:
        """The same rule on another image size."""
        return replace(self, height=height, width=width)

    of_photographs = at


PROTOCOLS = {"common": MemoryProtocol("common", "batch 1 at the papers' size")}
