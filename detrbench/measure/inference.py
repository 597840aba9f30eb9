"""Running a detector as it is measured: in eval mode, without gradients, over the images of a data set."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from detrbench.data import Dataset
from detrbench.data.loading import Batch, batches
from detrbench.data.transforms import Eval, Transform
from detrbench.models.detections import check_finite
from detrbench.models.detector import DetectorOutput

Progress = Callable[[int, int], None]  # (done, in all)


@contextlib.contextmanager
def evaluating(detector: nn.Module) -> Iterator[None]:
    """Eval and inference mode inside the block, the detector's own mode afterwards."""
    training = detector.training
    detector.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        detector.train(training)


def over_images(
    detector: nn.Module,
    dataset: Dataset,
    see: Callable[[DetectorOutput, Batch], None],
    device: torch.device | str = "cpu",
    batch_size: int = 1,
    transform: Transform | None = None,
    progress: Progress | None = None,
    num_workers: int = 0,
    **how: Any,
) -> None:
    """Shows each batch of a data set, with what the detector makes of it.

    Args:
        detector: moved to `device`; its training mode is restored afterwards.
        dataset: gives the images, in their order.
        see: is called with the output and the batch, both on the device.
        device: where to run.
        batch_size: images in a batch.
        transform: by default the papers' test transform (800/1333).
        progress: is called with the images done and their number, after each batch.
        num_workers: threads that load images.
        how: the detector's own arguments beside images and masks (`trace=True`).

    Raises:
        NotFinite: a prediction is no number; names the image.
    """
    detector.to(device)
    done = 0
    with evaluating(detector):
        for batch in batches(dataset, transform or Eval(), batch_size, num_workers=num_workers):
            batch = batch.to(device)
            out = detector(batch.images, _unless_unpadded(batch.masks), **how)
            check_finite(out, [f"image {image_id}" for image_id in batch.image_ids])
            see(out, batch)
            done += len(batch.image_ids)
            if progress is not None:
                progress(done, len(dataset))


def _unless_unpadded(masks: Tensor) -> Tensor | None:
    """(B, H, W) masks, or None where nothing is padded, which spares a detector all work on padding."""
    return masks if bool(masks.any()) else None
