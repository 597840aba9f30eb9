"""Which ImageNet weights the papers' backbones began with, and what their files are called. Imports no torch.

The ResNets are torchvision's first weights (IMAGENET1K_V1); detectron2's converted files, with which detrex begins,
hold the same numbers. The Swin Transformers are Microsoft's; those that torchvision publishes are others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Published:
    """A file of ImageNet weights.

    Attributes:
        file: its name, as published.
        url: where it is published.
        data: what the weights were trained on, in words.
        sha256: the first digits, where those who published it give them; else empty.
    """

    file: str
    url: str
    data: str
    sha256: str = ""


def _torchvision(file: str, converted: str) -> tuple[Published, ...]:
    data = "ImageNet-1k at 224 pixels (IMAGENET1K_V1)"
    digits = file.removesuffix(".pth").rpartition("-")[2]
    there = "https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/torchvision/"
    return (
        Published(file, f"https://download.pytorch.org/models/{file}", data, digits),
        Published(converted, there + converted, data),
    )


def _microsoft(file: str, data: str) -> tuple[Published, ...]:
    return (Published(file, f"https://github.com/SwinTransformer/storage/releases/download/v1.0.0/{file}", data),)


_SWIN_BASE: Mapping[int | None, tuple[Published, ...]] = {
    7: _microsoft("swin_base_patch4_window7_224_22k.pth", "ImageNet-22k at 224 pixels"),
    12: _microsoft("swin_base_patch4_window12_384_22k.pth", "ImageNet-22k at 384 pixels"),
}
# By backbone and `window_size`, which only a Swin Transformer has. Files of one entry hold the same numbers.
_FILES: Mapping[str, Mapping[int | None, tuple[Published, ...]]] = {
    "resnet50": {None: _torchvision("resnet50-0676ba61.pth", "R-50.pkl")},
    "resnet101": {None: _torchvision("resnet101-63fe2227.pth", "R-101.pkl")},
    "swin_tiny": {7: _microsoft("swin_tiny_patch4_window7_224.pth", "ImageNet-1k at 224 pixels")},
    "swin_base": _SWIN_BASE,
    "swin_base_384": _SWIN_BASE,
    "swin_large": {
        7: _microsoft("swin_large_patch4_window7_224_22k.pth", "ImageNet-22k at 224 pixels"),
        12: _microsoft("swin_large_patch4_window12_384_22k.pth", "ImageNet-22k at 384 pixels"),
    },
}


def published(backbone: str, options: Mapping[str, Any]) -> tuple[Published, ...]:
    """The files that a backbone may begin with, all of the same numbers, the first the best known; none for others.

    Args:
        backbone: name of the part.
        options: of the detector.
    """
    return _FILES.get(backbone, {}).get(options.get("window_size"), ())


def all_published() -> list[tuple[Published, ...]]:
    """The files of every backbone, each once; those in one tuple hold the same numbers."""
    return list(dict.fromkeys(files for sizes in _FILES.values() for files in sizes.values()))


def frozen(options: Mapping[str, Any]) -> tuple[str, int] | None:
    """(option, stages) that keep a backbone's first stages as they are; None where all of it is trained."""
    for name in ("frozen_stages", "swin_frozen_stages"):
        if options.get(name):
            return name, options[name]
    return None
