"""Running a detector as it is measured: in eval mode, without gradients, over the images of a data set."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from detrbench.data import Dataset
from detrbench.data.loading import Batch, batches
from detrbench.data.transforms import Eval, Transform
from detrbench.environment import cores
from detrbench.external.detector import Adapted
from detrbench.models.detections import check_finite
from detrbench.models.detector import DetectorOutput

LOADERS, GPU_LOADERS = 2, 8  # threads that read images while a detector is at work, there at most
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
    unpadded: bool = False,
    **how: Any,
) -> None:
    """Shows each batch of a data set, with what the detector makes of it.

    Args:
        detector: moved to `device`; its training mode is restored afterwards.
        dataset: gives the images, in their order; the next ones are read while the detector is at work.
        see: is called with the output and the batch, both on the device.
        device: where to run.
        batch_size: images in a batch.
        transform: by default the papers' test transform (800/1333).
        progress: is called with the images done and their number, after each batch.
        unpadded: see `loading.batches`; the images then come in another order.
        how: the detector's own arguments beside images and masks (`trace=True`).

    Raises:
        NotFinite: a prediction is no number; names the image.
    """
    detector.to(device)
    done, gpu = 0, torch.device(device).type == "cuda"
    loaders = min(GPU_LOADERS, cores()) if gpu else LOADERS
    loaded = batches(dataset, transform or Eval(), batch_size, num_workers=loaders, unpadded=unpadded, pin=gpu)
    with evaluating(detector):
        for batch, masked in _on(device, loaded):
            out = detector(batch.images, batch.masks if masked else None, **how)
            if not isinstance(detector, Adapted):  # what one from elsewhere says is checked once it is understood
                check_finite(out, [f"image {image_id}" for image_id in batch.image_ids])
            see(out, batch)
            done += len(batch.image_ids)
            if progress is not None:
                progress(done, len(dataset))


def _on(device: torch.device | str, loaded: Iterable[Batch]) -> Iterator[tuple[Batch, bool]]:
    """Each batch on the device, and whether it has padding, without which a detector is spared all work on masks.

    The next one is on its way to a GPU while that is at work on this one.
    """
    waiting: deque[tuple[Batch, bool]] = deque()
    ahead = 1 if torch.device(device).type == "cuda" else 0
    for batch in loaded:
        waiting.append((batch.to(device), bool(batch.masks.any())))
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting
