"""Batches in an order (`order.py`), and with augmentations, that depend only on the seed, the epoch and the image.

So a run that was killed goes on with the very batches it would have had, and the number of worker threads changes
nothing but the speed.
"""

from __future__ import annotations

import functools
import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from detrbench.data.order import Order, Place, in_turn, of_one_size, pieces
from detrbench.data.samples import Dataset
from detrbench.data.seeding import derive_seed
from detrbench.data.transforms import Transform


@dataclass(frozen=True)
class Batch:
    """B images, padded with zeros at the right and the bottom to the largest height and width among them.

    Attributes:
        images: (B, 3, H, W) float32, normalised; zeros on padding.
        masks: (B, H, W) bool, True on padding.
        targets: for each image {"labels": (n,) int64, "boxes": (n, 4) float32 cx cy w h in [0, 1] of its own area}.
        image_ids: the data set's ids.
        sizes: (B, 2) int64, height and width of each image as stored.
    """

    images: Tensor
    masks: Tensor
    targets: list[dict[str, Tensor]]
    image_ids: list[int]
    sizes: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device; the image ids stay where they are.

        Pinned images are copied while this process goes on.
        """
        targets = [
            {key: value.to(device, non_blocking=True) for key, value in target.items()} for target in self.targets
        ]
        images, masks, sizes = (t.to(device, non_blocking=True) for t in (self.images, self.masks, self.sizes))
        return Batch(images, masks, targets, self.image_ids, sizes)


def batches(
    dataset: Dataset,
    transform: Transform,
    batch_size: int,
    seed: int = 0,
    epoch: int = 0,
    start_batch: int = 0,
    shuffle: bool = False,
    num_workers: int = 0,
    unpadded: bool = False,
    pin: bool = False,
) -> Iterator[Batch]:
    """One epoch in batches, the last of them possibly short.

    Args:
        dataset: read by index, from several threads if `num_workers` is above 0.
        transform: gets a generator of its own for each image, seeded by (seed, pass, index).
        batch_size: images in a batch.
        seed: with `epoch`, decides order and augmentation.
        epoch: see `seed`.
        start_batch: batches to leave out at the front, without reading their images.
        shuffle: in random order; otherwise by ascending image id, as evaluation wants it.
        num_workers: threads that prepare batches ahead. Decoding and resizing release Python's lock.
        unpadded: only images that are stored at one size go together, sizes by their first image, so that with a
            transform that asks nothing but the size no batch has padding. Not for `shuffle`.
        pin: keep images in memory from which a GPU copies while it computes.

    Raises:
        DataError: a broken image, named, when its batch is due.
    """
    if unpadded:
        wanted = of_one_size(dataset, batch_size, epoch)
    elif shuffle:
        wanted = Order(batch_size, seed).epoch(dataset, epoch)
    else:
        wanted = in_turn(len(dataset), batch_size, epoch)
    load = functools.partial(_load, dataset, transform, seed=seed, pin=pin)
    if num_workers == 0:
        yield from map(load, wanted[start_batch:])
        return
    with ThreadPoolExecutor(num_workers, thread_name_prefix="batches") as pool:
        yield from _ahead((pool.submit(load, places) for places in wanted[start_batch:]), 2 * num_workers)


def steps(
    dataset: Dataset, transform: Transform, order: Order, micro_batch: int, epoch: int, start_batch: int = 0
) -> Iterator[list[Batch]]:
    """One epoch in optimiser steps, each as its micro-batches.

    Args:
        dataset: as for `batches`.
        transform: as for `batches`.
        order: which images a step holds; its seed is that of the augmentation too.
        micro_batch: images that are padded together.
        epoch: as for `batches`.
        start_batch: steps to leave out at the front.

    Raises:
        DataError: a broken image, named, when its step is due.
    """
    for places in order.epoch(dataset, epoch)[start_batch:]:
        yield [_load(dataset, transform, piece, order.seed) for piece in pieces(places, micro_batch)]


def num_batches(dataset: Dataset, batch_size: int) -> int:
    """Batches in one pass."""
    return -(-len(dataset) // batch_size)


def pad(images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Images (3, H_i, W_i) as one batch (B, 3, H, W) with zeros on padding, and its mask (B, H, W), True there."""
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    batch = images[0].new_zeros(len(images), 3, height, width)
    masks = torch.ones(len(images), height, width, dtype=torch.bool, device=batch.device)
    for image, slot, mask in zip(images, batch, masks, strict=True):
        slot[:, : image.shape[1], : image.shape[2]] = image
        mask[: image.shape[1], : image.shape[2]] = False
    return batch, masks


def _load(dataset: Dataset, transform: Transform, places: Sequence[Place], seed: int, pin: bool = False) -> Batch:
    images, targets, image_ids, sizes = [], [], [], []
    for index, number in places:
        sample = dataset[index]
        image, target = transform(sample, random.Random(derive_seed("augment", seed, number, index)))
        images.append(image)
        targets.append(target)
        image_ids.append(sample.target.image_id)
        sizes.append([sample.height, sample.width])
    padded, masks = pad(images)
    return Batch(padded.pin_memory() if pin else padded, masks, targets, image_ids, torch.tensor(sizes))


def _ahead(futures: Iterable[Future[Batch]], depth: int) -> Iterator[Batch]:
    """The results in order, with `depth` of them under way; those not begun are cancelled when the reader stops."""
    waiting: deque[Future[Batch]] = deque()
    try:
        for future in futures:
            waiting.append(future)
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
