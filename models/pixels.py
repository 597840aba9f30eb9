"""How the images of every detector here are normalised: scaled to [0, 1], less a mean, over a deviation."""

from __future__ import annotations

from torch import Tensor

from detrbench.models.transfer import written

# ImageNet's, by colour: red, green, blue.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def unit_range(images: Tensor) -> Tensor:
    """(B, 3, H, W) normalised images -> the same, back in [0, 1]."""
    mean, std = written([*MEAN, *STD], images.device, images.dtype).view(2, 3, 1, 1)
    return images * std + mean
