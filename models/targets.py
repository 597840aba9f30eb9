"""The objects of a batch: as they come, one record an image, and as the losses read them, one behind the other.

Shapes: B images, T objects of all images, n of one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from detrbench.models.transfer import upload

# `labels` (n,) int64 and `boxes` (n, 4), cx, cy, w, h in [0, 1].
Target = dict[str, Tensor]


@dataclass(frozen=True)
class Objects:
    """All objects of a batch in one row, image after image; how many there are is known without asking the device.

    Attributes:
        labels: (T,) int64.
        boxes: (T, 4), in the type that losses are computed in.
        image: (T,) int64, the image that each is on.
        slot: (T,) int64, its number within the image.
        counts: objects of each image.
    """

    labels: Tensor
    boxes: Tensor
    image: Tensor
    slot: Tensor
    counts: tuple[int, ...]

    @classmethod
    def of(cls, targets: list[Target], like: Tensor) -> Objects:
        """The objects of a batch, (n,) labels and (n, 4) boxes an image; in the type and on the device of `like`."""
        counts = tuple(len(target["labels"]) for target in targets)
        image, slot = _numbers(counts, like.device)
        labels = torch.cat([target["labels"] for target in targets])
        return cls(labels, torch.cat([target["boxes"] for target in targets]).to(like), image, slot, counts)

    @property
    def most(self) -> int:
        """The most objects of any image."""
        return max(self.counts, default=0)

    def as_one_class(self) -> Objects:
        """The same with label 0."""
        return replace(self, labels=torch.zeros_like(self.labels))

    def repeated(self, times: int) -> Objects:
        """Every object there so many times: an image's objects in their order, then again."""
        counts = tuple(times * count for count in self.counts)
        starts = [sum(self.counts[:image]) for image in range(len(self.counts))]
        rows = [start + slot for start, n in zip(starts, self.counts) for _ in range(times) for slot in range(n)]
        row = upload(torch.tensor(rows, dtype=torch.long), self.labels.device)
        image, slot = _numbers(counts, self.labels.device)
        return Objects(self.labels[row], self.boxes[row], image, slot, counts)


def _numbers(counts: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """(T,) images and (T,) slots of objects."""
    pairs = [(image, slot) for image, count in enumerate(counts) for slot in range(count)]
    image, slot = upload(torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T.contiguous(), device)
    return image, slot
