"""The detectors of torchvision: Faster R-CNN, RetinaNet, FCOS, SSD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torchvision
from torch import Tensor, nn

from detrbench.data.transforms import Eval, Stretch
from detrbench.errors import unknown_name
from detrbench.external.detector import ExternalDetector
from detrbench.external.sources import Source
from detrbench.models.detections import Detections

# They normalise by themselves, and scale what they are given.
_AS_IT_IS = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
_PARTS = {
    "backbone.body": "backbone",
    "backbone.features": "backbone",  # of SSD
    "backbone.fpn": "neck",
    "rpn": "queries",  # where objects may be
    "roi_heads": "decoder",  # from there to objects
    "head": "heads",
}


def build(source: Source, options: dict[str, Any]) -> ExternalDetector:
    """A detector by torchvision's name, with random weights; options are its builder's arguments.

    Raises:
        UsageError: no such detector.
    """
    known = torchvision.models.list_models(module=torchvision.models.detection)
    if source.name not in known:
        raise unknown_name("detector of torchvision", source.name, known)
    module = torchvision.models.get_model(source.name, **{"weights": None, "weights_backbone": None, **options})
    names = {name for name, _ in module.named_modules()}
    return ExternalDetector(
        module,
        parts={name: part for name, part in _PARTS.items() if name in names},
        native=_native(module),
        arguments=lambda images: (list(images),),
        detections=_detections,
    )


def _native(module: nn.Module) -> Eval | Stretch:
    """What its own transform makes of an image, which is then left to ours: the module gets images of that size."""
    own: Any = module.transform
    own.resize = lambda image, target: (image, target)
    if own.fixed_size is not None:
        width, height = own.fixed_size
        return Stretch(height, width, **_AS_IT_IS)
    return Eval(own.min_size[-1], own.max_size, **_AS_IT_IS)


def _detections(out: Sequence[dict[str, Tensor]], size: tuple[int, int]) -> list[Detections]:
    return [Detections(image["scores"], image["labels"], image["boxes"]) for image in out]
