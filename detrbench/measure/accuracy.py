"""What a detector detects in a data set, under several accuracy protocols from one forward; `scoring` scores it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from detrbench import models
from detrbench.data import Dataset
from detrbench.data.loading import Batch
from detrbench.data.samples import Sample
from detrbench.data.transforms import Transform
from detrbench.external.detector import Adapted
from detrbench.measure.detections import Detections
from detrbench.measure.inference import Progress, over_images
from detrbench.measure.protocols.accuracy import AccuracyProtocol
from detrbench.models.detections import Detections as Found
from detrbench.models.detector import DetectorOutput
from detrbench.ranks import ALONE, Ranks


def collect(
    detector: nn.Module,
    dataset: Dataset,
    protocols: Sequence[AccuracyProtocol],
    device: torch.device | str = "cpu",
    batch_size: int = 1,
    transform: Transform | None = None,
    progress: Progress | None = None,
    observe: Callable[[DetectorOutput, Batch], None] = lambda out, batch: None,
    ranks: Ranks = ALONE,
) -> dict[str, Detections]:
    """Run the detector over a data set, once for all protocols.

    Args:
        detector: moved to `device`; its training mode is restored afterwards.
        dataset: gives images and the category ids of labels.
        protocols: how many detections an image keeps, and NMS.
        device: where to run.
        batch_size: images in a batch, all of one size: nothing is padded, as it is not with one.
        transform: by default the papers' test transform (800/1333).
        progress: as for `inference.over_images`.
        observe: is shown each batch with the detector's output, for what else can be read from the same forward.
        ranks: the processes that share the images.

    Returns:
        By protocol: boxes in pixels of the stored image, image by image, best first. Labels without a category are
        dropped.
    """
    categories = _category_ids(detector, dataset)
    found: dict[str, list[tuple[int, Detections]]] = {protocol.name: [] for protocol in protocols}

    def see(out: DetectorOutput, batch: Batch) -> None:
        observe(out, batch)
        for name, image_id, each in _detected(detector, out, batch, protocols, categories):
            found[name].append((image_id, each))

    def run() -> dict[str, list[tuple[int, Detections]]]:
        mine = cast(Dataset, Share(dataset, ranks))
        over_images(detector, mine, see, device, batch_size, transform, progress, unpadded=True)
        return found

    shares = ranks.share(run)
    every = {name: list(itertools.chain(*(share[name] for share in shares))) for name in found}
    in_order = {name: sorted(parts, key=lambda part: part[0]) for name, parts in every.items()}
    return {name: Detections.concatenated([each for _, each in parts]) for name, parts in in_order.items()}


class Share:
    """Every n-th image of a data set, as process r of n takes them."""

    def __init__(self, dataset: Dataset, ranks: Ranks) -> None:
        self.dataset = dataset
        self.indices = range(ranks.rank, len(dataset), ranks.size)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """(N, 2) width and height of these images as stored."""
        return self.dataset.sizes[self.indices.start :: self.indices.step]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.indices[index]]


def _detected(
    detector: nn.Module,
    out: Any,
    batch: Batch,
    protocols: Sequence[AccuracyProtocol],
    categories: Mapping[int, int],
) -> Iterator[tuple[str, int, Detections]]:
    """(protocol, image id, its detections); protocols that differ in `top` alone share the longest list."""
    for nms in {protocol.nms: None for protocol in protocols}:
        alike = [protocol for protocol in protocols if protocol.nms == nms]
        longest = _best(detector, out, batch, max(each.top for each in alike), nms)
        for image_id, best in zip(batch.image_ids, longest):
            labels = best.labels.tolist()
            known = np.array([label in categories for label in labels], dtype=bool)
            ids = np.array([categories.get(label, 0) for label in labels], dtype=np.int64)
            boxes = best.boxes.double().cpu().numpy()
            boxes[:, 2:] -= boxes[:, :2]
            whole = Detections(np.full(len(ids), image_id), ids, boxes, best.scores.double().cpu().numpy())
            for protocol in alike:
                yield protocol.name, image_id, whole.chosen(np.flatnonzero(known[: protocol.top]))


def _best(detector: nn.Module, out: Any, batch: Batch, top: int, nms: float | None) -> list[Found]:
    """The best detections of each image; one from elsewhere has its own way to them."""
    if not isinstance(detector, Adapted):
        return models.postprocess(out, batch.sizes, top=top, nms=nms)
    names = [f"image {image_id}" for image_id in batch.image_ids]
    every = detector.detections(out, batch.images, batch.sizes, names)
    return [Found(each.scores[:top], each.labels[:top], each.boxes[:top]) for each in every]


def _category_ids(detector: nn.Module, dataset: Dataset) -> Mapping[int, int]:
    """Label -> category id of a detector's labels."""
    own = detector.external.category_ids if isinstance(detector, Adapted) else None
    return category_ids(dataset) if own is None else own


def category_ids(dataset: Dataset) -> dict[int, int]:
    """Label -> category id, for the labels that have one."""
    known = {category.id for category in dataset.categories}
    table = {}
    for label in range(dataset.num_classes):
        with contextlib.suppress(LookupError):
            if dataset.to_category_id(label) in known:
                table[label] = dataset.to_category_id(label)
    return table
