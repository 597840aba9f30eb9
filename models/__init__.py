"""The detectors: build one, load its weights, run it. Importing this package imports no torch.

```python
from detrbench import models

detector = models.create("sparse_detr_r50", keep_ratio=0.3)
models.load_checkpoint(detector, "sparse_detr_r50_30.pth")
out = detector(images, masks)
```
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detrbench.errors import UsageError
from detrbench.files import replacing
from detrbench.models.options import Option
from detrbench.models.parts import Part, all_parts, register_part
from detrbench.models.spec import DetectorSpec, override_names, resolve
from detrbench.models.zoo import BACKBONES, Variant, get_variant, register_variant, variant_names

if TYPE_CHECKING:
    from torch import Tensor

    from detrbench.models import ops
    from detrbench.models.checkpoints import LoadReport
    from detrbench.models.detections import Detections, Predicts
    from detrbench.models.detector import Detector
    from detrbench.models.inference import Kind

__all__ = [
    "DetectorSpec",
    "Option",
    "Part",
    "Variant",
    "all_parts",
    "create",
    "describe",
    "export_onnx",
    "for_inference",
    "load_backbone",
    "load_checkpoint",
    "names",
    "ops",
    "override_names",
    "postprocess",
    "register",
    "resolve",
    "save_checkpoint",
    "start_from",
]


def names() -> list[str]:
    """Sorted names of all variants."""
    return variant_names()


def describe(name: str) -> Variant:
    """What a variant is: summary, paper, parts, options, sources."""
    return get_variant(name)


def register(item: Variant | Part) -> None:
    """Add a variant or a part of your own; an entry point in the group `detrbench.models` may call this."""
    if isinstance(item, Variant):
        register_variant(item)
    else:
        register_part(item)


def create(name: str | None = None, *, base: str | None = None, **overrides: Any) -> Detector:
    """Build a detector with random weights.

    Args:
        name: a variant's name, as `detrbench list models` prints it.
        base: a variant's name without its backbone, for free combinations; give this or `name`.
        overrides: another part for a kind (`encoder="sparse"`), an option (`keep_ratio=0.3`), or `source`, the code
            base whose conventions hold.

    Raises:
        UsageError: anything unknown, with the nearest known name.
    """
    from detrbench.models.detector import build

    return build(resolve(_variant_name(name, base), overrides))


def _variant_name(name: str | None, base: str | None) -> str:
    if (name is None) == (base is None):
        raise UsageError("give either a model's name or base=", hint="detrbench list models")
    return name if name is not None else f"{base}_{next(iter(BACKBONES))}"


def load_checkpoint(detector: Detector, path: str | Path) -> LoadReport:
    """Load an official file of a supported repository, or ours, strictly. See `checkpoints.load`."""
    from detrbench.models import checkpoints

    return checkpoints.load(detector, Path(path))


def load_backbone(detector: Detector, path: str | Path) -> LoadReport:
    """Fill the backbone alone, strictly, from a published file of ImageNet weights. See `checkpoints.load_backbone`."""
    from detrbench.models import checkpoints

    return checkpoints.load_backbone(detector, Path(path))


def start_from(detector: Detector, path: str | Path) -> LoadReport:
    """Begin with another detector's weights, and with new class heads where it has other classes.

    See `checkpoints.start_from`.
    """
    from detrbench.models import checkpoints

    return checkpoints.start_from(detector, Path(path))


def save_checkpoint(
    detector: Detector,
    path: str | Path,
    provenance: dict[str, str] | None = None,
    class_names: Sequence[str] | None = None,
) -> None:
    """Write the detector's weights as safetensors with their provenance. See `checkpoints.save`."""
    from detrbench.models import checkpoints

    checkpoints.save(detector, Path(path), provenance or {}, class_names)


def for_inference(detector: Kind) -> Kind:
    """A copy that computes the same faster and cannot be trained. See `inference.for_inference`."""
    from detrbench.models import inference

    return inference.for_inference(detector)


def export_onnx(
    detector: Detector,
    path: str | Path,
    size: tuple[int, int],
    batch_size: int = 1,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write the detector as ONNX, for images of that height and width. See `export.export_onnx`."""
    from detrbench.models import export

    with replacing(Path(path)) as temporary:
        export.export_onnx(detector, temporary, batch_size, *size, about)


def postprocess(
    out: Predicts, sizes: Tensor | Sequence[tuple[int, int]], top: int = 100, nms: float | None = None
) -> list[Detections]:
    """The best `top` (query, class) pairs of each image, in pixels; arguments as for `detections.detections`."""
    from detrbench.models.detections import detections

    return detections(out, sizes, top, nms)


def __getattr__(attribute: str) -> Any:
    # `models.ops` needs torch, so it is imported when first asked for.
    if attribute == "ops":
        return importlib.import_module("detrbench.models.ops")
    raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")
