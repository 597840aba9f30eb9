"""Which images a training step sees: a function of seed, epoch and step, and of nothing else.

A pass goes once through all images at random. An epoch is one pass; or it is so many steps of passes that follow each
other without end, as detectron2 counts, so that an epoch may end, and the next one begin, within a pass.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from detrbench.data.samples import Dataset
from detrbench.data.seeding import derive_seed


class Place(NamedTuple):
    """An image by its index in the data set, and the pass that it belongs to: they decide its augmentation."""

    image: int
    number: int


@dataclass(frozen=True)
class Order:
    """How training goes through its images.

    Args:
        batch_size: images in a step.
        seed: another one gives another order.
        steps: in an epoch; None for those of one pass.
        grouped: images whose aspect ratio is on the same side of 1 that stay side by side, a divisor of `batch_size`
            (detectron2's aspect-ratio grouping); None for an order that does not look at sizes.
    """

    batch_size: int
    seed: int = 0
    steps: int | None = None
    grouped: int | None = None

    def epoch(self, dataset: Dataset, epoch: int) -> list[list[Place]]:
        """The images of each step of an epoch, counted from 0."""
        places = self._pass(len(dataset), epoch) if self.steps is None else self._stretch(len(dataset), epoch)
        if self.grouped is not None:
            wide = [bool(width > height) for width, height in dataset.sizes]
            places = _side_by_side(places, wide, self.grouped)
        return pieces(places, self.batch_size)

    def _stretch(self, length: int, epoch: int) -> list[Place]:
        """As many images as an epoch has steps for, from where the epoch before ended."""
        images = int(self.steps or 0) * self.batch_size
        first, skipped = divmod(epoch * images, length)
        last = ((epoch + 1) * images - 1) // length
        stream = [place for number in range(first, last + 1) for place in self._pass(length, number)]
        return stream[skipped : skipped + images]

    def _pass(self, length: int, number: int) -> list[Place]:
        order = list(range(length))
        random.Random(derive_seed("order", self.seed, number)).shuffle(order)
        return [Place(index, number) for index in order]


def in_turn(length: int, batch_size: int) -> list[list[Place]]:
    """All images by ascending index."""
    return pieces([Place(index, 0) for index in range(length)], batch_size)


def of_one_size(dataset: Dataset, batch_size: int) -> list[list[Place]]:
    """All images, in each piece only such as are stored at one size; sizes by their first image."""
    alike: dict[tuple[int, int], list[Place]] = {}
    for index, (width, height) in enumerate(dataset.sizes.tolist() if batch_size > 1 else [(0, 0)] * len(dataset)):
        alike.setdefault((width, height), []).append(Place(index, 0))
    return [piece for group in alike.values() for piece in pieces(group, batch_size)]


def _side_by_side(places: Sequence[Place], wide: Sequence[bool], size: int) -> list[Place]:
    """The same images, `size` of one kind at a time, each group where its last image stood; what is left over last."""
    arranged: list[Place] = []
    waiting: dict[bool, list[Place]] = {True: [], False: []}
    for place in places:
        group = waiting[wide[place.image]]
        group.append(place)
        if len(group) == size:
            arranged += group
            group.clear()
    return arranged + waiting[True] + waiting[False]


def pieces(places: Sequence[Place], size: int) -> list[list[Place]]:
    """The same images, so many at a time, the last piece possibly short."""
    return [list(places[i : i + size]) for i in range(0, len(places), size)]
