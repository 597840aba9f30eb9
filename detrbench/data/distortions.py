"""SSD's augmentations (Liu et al., ECCV 2016) as RT-DETR draws them, by torchvision's transforms.

Colours are changed in half of the images, half are laid into a black canvas of up to four times their sides, and four
of five go through a window that overlaps some object by a drawn IoU. Objects whose box has a side below one pixel go.
"""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

_DISTORT = v2.Compose(
    [
        v2.RandomPhotometricDistort(p=0.5),
        v2.RandomZoomOut(fill=0, p=0.5),
        v2.RandomApply([v2.RandomIoUCrop()], p=0.8),
        v2.SanitizeBoundingBoxes(min_size=1),
    ]
)
Labels = npt.NDArray[np.int64]
Boxes = npt.NDArray[np.float32]


def distorted(
    image: Image.Image, labels: Labels, boxes: Boxes, rng: random.Random
) -> tuple[Image.Image, Labels, Boxes]:
    """An image with its labels (n,) and boxes (n, 4), x1 y1 x2 y2 in pixels; all randomness comes from `rng`."""
    size = (image.height, image.width)
    target = {
        "labels": torch.from_numpy(labels),
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.getrandbits(63))
        image, target = _DISTORT(image, target)
    return image, target["labels"].numpy(), np.asarray(target["boxes"], dtype=np.float32).reshape(-1, 4)
