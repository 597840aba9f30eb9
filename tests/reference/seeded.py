"""Weights and images that two independent implementations can both make, from names and shapes alone.

A tensor depends on nothing but its own name and shape, so an official implementation and ours agree on every value
although no file changed hands. All in float64.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def seeded_tensor(name: str, shape: Sequence[int]) -> Tensor:
    """The values of one parameter or buffer of an official checkpoint."""
    shape = tuple(shape)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long)
    if name.endswith("running_var"):
        return torch.from_numpy(np.asarray(rng.uniform(0.5, 1.5, shape)))
    if len(shape) >= 2:
        fan_in = int(np.prod(shape[1:]))
        return torch.from_numpy(rng.standard_normal(shape) * fan_in**-0.5)
    value = 0.1 * rng.standard_normal(shape)
    if name.endswith("weight"):  # one-dimensional weights are the gains of norms
        value = value + 1.0
    return torch.from_numpy(np.asarray(value))


def seeded_checkpoint(golden: dict[str, Any]) -> dict[str, Tensor]:
    """The state dict that the golden's official model was given, every name present.

    Official models list one tensor under several names, of which the last one loaded decided; so each alias gets the
    deciding name's values. Swin's integer buffers hold the usual index.
    """
    aliases = golden["aliases"]
    return {
        name: relative_position_index(int(shape[0] ** 0.5))
        if name.endswith("relative_position_index")
        else seeded_tensor(aliases.get(name, name), shape)
        for name, shape in golden["shapes"].items()
    }


def relative_position_index(window: int) -> Tensor:
    """(window**2, window**2) index of the relative offset between two cells of a window."""
    y, x = np.divmod(np.arange(window * window), window)
    dy = y[:, None] - y[None, :] + window - 1
    dx = x[:, None] - x[None, :] + window - 1
    return torch.from_numpy(dy * (2 * window - 1) + dx)


def seeded_image(height: int, width: int, seed: int = 0) -> Tensor:
    """(3, height, width) in [0, 1], smooth: a sum of plane waves."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    image = np.zeros((3, height, width))
    for channel in range(3):
        for _ in range(8):
            fy, fx = rng.uniform(-0.2, 0.2, 2)
            image[channel] += np.sin(fy * y + fx * x + rng.uniform(0, 6.28))
    image = (image - image.min()) / (image.max() - image.min())
    return torch.from_numpy(image)


def seeded_batch(images: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Images normalised and padded to the largest one.

    Args:
        images: height, width and seed of each.

    Returns:
        (B, 3, H, W), zero on padding, and (B, H, W) bool, True there.
    """
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    height, width = max(i[0] for i in images), max(i[1] for i in images)
    batch = torch.zeros(len(images), 3, height, width, dtype=torch.float64)
    masks = torch.ones(len(images), height, width, dtype=torch.bool)
    for index, (h, w, seed) in enumerate(images):
        batch[index, :, :h, :w] = (seeded_image(h, w, seed) - mean) / std
        masks[index, :h, :w] = False
    return batch, masks
