"""Which ImageNet weights the papers' backbones began with, as names of the catalogue of weights. Imports no torch.

The ResNets are torchvision's first weights (IMAGENET1K_V1); detectron2's converted files, with which detrex begins,
hold the same numbers. Those of ResNet-D are the ones that RT-DETR names, which were trained in Paddle. The Swin
Transformers are Microsoft's; those that torchvision publishes are others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SWIN_BASE = {7: ("backbones/swin_b_22k_224",), 12: ("backbones/swin_b_22k_384",)}
# By backbone and `window_size`, which only a Swin Transformer has. Those of one entry hold the same numbers.
_NAMES: Mapping[str, Mapping[Any, tuple[str, ...]]] = {
    "resnet50": {None: ("backbones/resnet50", "backbones/resnet50_detectron2")},
    "resnet101": {None: ("backbones/resnet101", "backbones/resnet101_detectron2")},
    **{f"resnet{depth}_vd": {None: (f"backbones/resnet{depth}_vd",)} for depth in (18, 34, 50, 101)},
    "swin_tiny": {7: ("backbones/swin_t",)},
    "swin_base": _SWIN_BASE,
    "swin_base_384": _SWIN_BASE,
    "swin_large": {7: ("backbones/swin_l_22k_224",), 12: ("backbones/swin_l_22k_384",)},
}


def published(backbone: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """The weights that a backbone may begin with, all of the same numbers, the first the best known; none for others.

    Args:
        backbone: name of the part.
        options: of the detector.
    """
    return _NAMES.get(backbone, {}).get(options.get("window_size"), ())


def all_published() -> list[tuple[str, ...]]:
    """The weights of every backbone, each once; those in one tuple hold the same numbers."""
    return list(dict.fromkeys(names for sizes in _NAMES.values() for names in sizes.values()))


def frozen(options: Mapping[str, Any]) -> tuple[str, int] | None:
    """(option, stages) that keep a backbone's first stages as they are; None where all of it is trained."""
    for name in ("frozen_stages", "swin_frozen_stages"):
        if options.get(name):
            return name, options[name]
    return None
