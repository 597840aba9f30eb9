"""Batches in an order (`order.py`), and with augmentations, that depend only on the seed, the epoch and the image.

So a run that was killed goes on with the very batches it would have had, and the number of worker threads changes
nothing but the speed.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from detrbench.data.order import Order, Place, in_turn, of_one_size, pieces
from detrbench.data.samples import Dataset
from detrbench.data.seeding import derive_seed
from detrbench.data.transforms import Transform
from detrbench.errors import DetrbenchError


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

    def pin_memory(self) -> Batch:
        """The same batch where a GPU can fetch it by itself."""
        targets = [{key: value.pin_memory() for key, value in target.items()} for target in self.targets]
        tensors = [tensor.pin_memory() for tensor in (self.images, self.masks, self.sizes)]
        return Batch(tensors[0], tensors[1], targets, self.image_ids, tensors[2])


def batches(
    dataset: Dataset,
    transform: Transform,
    batch_size: int,
    num_workers: int = 0,
    unpadded: bool = False,
    pin: bool = False,
) -> Iterator[Batch]:
    """All images in batches by ascending image id, as evaluation wants them, the last batch possibly short.

    Args:
        dataset: read by index, from several threads if `num_workers` is above 0.
        transform: gets a generator of its own for each image.
        batch_size: images in a batch.
        num_workers: threads that prepare batches ahead. Decoding and resizing release Python's lock.
        unpadded: only images that are stored at one size go together, sizes by their first image, so that with a
            transform that asks nothing but the size no batch has padding.
        pin: keep images in memory from which a GPU copies while it computes.

    Raises:
        DataError: a broken image, named, when its batch is due.
    """
    wanted = of_one_size(dataset, batch_size) if unpadded else in_turn(len(dataset), batch_size)

    def load(places: Sequence[Place]) -> Batch:
        batch = _load(dataset, transform, places, seed=0)
        return batch.pin_memory() if pin else batch

    if num_workers == 0:
        yield from map(load, wanted)
        return
    with ThreadPoolExecutor(num_workers, thread_name_prefix="batches") as pool:
        yield from _ahead((pool.submit(load, places) for places in wanted), 2 * num_workers)


def steps(
    dataset: Dataset,
    transform: Transform,
    order: Order,
    micro_batch: int,
    epochs: Iterable[int],
    start_batch: int = 0,
    part: tuple[int, int] = (0, 1),
    num_workers: int = 0,
) -> Generator[list[Batch], None, None]:
    """Epochs in optimiser steps, each as its micro-batches.

    Args:
        dataset: read by index.
        transform: gets a generator of its own for each image, seeded by (seed, pass, index).
        order: which images a step holds; its seed is that of the augmentation too.
        micro_batch: images that are padded together.
        epochs: by number.
        start_batch: steps to leave out at the front of the first epoch.
        part: which of how many equal parts of each step; a short step at the end may have nothing for the last ones.
        num_workers: processes that prepare micro-batches ahead, in pinned memory where there is a GPU.

    Raises:
        DataError: a broken image, named, when its step is due.
    """

    def plan() -> Iterator[list[list[Place]]]:
        share = order.batch_size // part[1]
        for place, epoch in enumerate(epochs):
            for images in order.epoch(dataset, epoch)[0 if place else start_batch :]:
                yield pieces(images[part[0] * share : (part[0] + 1) * share], micro_batch)

    ahead, due = itertools.tee(plan())
    wanted = itertools.chain.from_iterable(ahead)
    with contextlib.closing(_read(_Reader(dataset, transform, order.seed), wanted, num_workers)) as read:
        for step in due:
            yield [_whole(each) for each in itertools.islice(read, len(step))]


class _Reader:
    """Micro-batches by piece; an error that names a file is handed over, for another process would lose its hint."""

    def __init__(self, dataset: Dataset, transform: Transform, seed: int) -> None:
        self.dataset, self.transform, self.seed = dataset, transform, seed

    def __getitem__(self, places: Sequence[Place]) -> Batch | DetrbenchError:
        try:
            return _load(self.dataset, self.transform, places, self.seed)
        except DetrbenchError as error:
            return error


def _whole(found: Batch | DetrbenchError) -> Batch:
    if isinstance(found, DetrbenchError):
        raise found
    return found


def _read(
    reader: _Reader, wanted: Iterator[list[Place]], num_workers: int
) -> Generator[Batch | DetrbenchError, None, None]:
    """The pieces in order, read by this process when they are due or by others ahead; those end with the generator."""
    if not num_workers or sys.platform == "darwin":  # Apple's libraries do not survive a fork
        for places in wanted:
            yield reader[places]
        return
    yield from DataLoader(
        reader,  # type: ignore[arg-type]
        batch_size=None,
        sampler=wanted,
        num_workers=num_workers,
        prefetch_factor=4,
        multiprocessing_context="fork",  # shares the index, which may be large and need not be sent
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_leave_signals_alone,
        generator=torch.Generator(),  # of its own: nobody else's random numbers are touched
    )


def _leave_signals_alone(worker: int) -> None:
    """What ends a run goes to all of its processes; the first one finishes its step, for which it needs images."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


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


def _load(dataset: Dataset, transform: Transform, places: Sequence[Place], seed: int) -> Batch:
    images, targets, image_ids, sizes = [], [], [], []
    for index, number in places:
        sample = dataset[index]
        image, target = transform(sample, random.Random(derive_seed("augment", seed, number, index)))
        images.append(image)
        targets.append(target)
        image_ids.append(sample.target.image_id)
        sizes.append([sample.height, sample.width])
    padded, masks = pad(images)
    return Batch(padded, masks, targets, image_ids, torch.tensor(sizes))


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
