"""Weights in and out: official files of the supported repositories, and ours (safetensors with provenance).

Loading is strict. Every name in the file must lead to one of the detector's, every one of the detector's must be
given, shapes must agree, and names that share a tensor in the official model must hold the same values; whatever does
not fit is listed.
"""

from __future__ import annotations

import datetime
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file
from torch import Tensor

from detrbench.errors import CheckpointError
from detrbench.files import replacing, sha256
from detrbench.models.checkpoints import detrex, original, own, rt_detr, salience, transformers
from detrbench.models.checkpoints.adapter import Adapter
from detrbench.models.checkpoints.backbone import load_backbone
from detrbench.models.checkpoints.classes import other_classes
from detrbench.models.checkpoints.fitting import LoadReport, check_fit
from detrbench.models.checkpoints.reading import CLASS_NAMES, class_names, read

if TYPE_CHECKING:
    from detrbench.models.detector import Detector

ADAPTERS: tuple[Adapter, ...] = (
    own.ADAPTER,
    original.ADAPTER,
    salience.ADAPTER,
    detrex.ADAPTER,
    transformers.ADAPTER,
    rt_detr.OFFICIAL,
    rt_detr.TRANSFORMERS,
)

__all__ = [
    "ADAPTERS",
    "LoadReport",
    "adapter_for",
    "check",
    "class_names",
    "convert",
    "load",
    "load_backbone",
    "read",
    "save",
    "start_from",
]


def load(detector: Detector, path: Path) -> LoadReport:
    """Fill a detector from a file; its parameters keep their type and device.

    Raises:
        CheckpointError: the file is missing, truncated, not weights, or does not fit.
    """
    return _fill(detector, path, replace_class_heads=False)


def start_from(detector: Detector, path: Path) -> LoadReport:
    """Fill a detector that is going to be trained: where the file has other classes, the class heads stay as they are.

    Raises:
        CheckpointError: as `load`; everything but the number of classes has to fit.
    """
    return _fill(detector, path, replace_class_heads=True)


def _fill(detector: Detector, path: Path, replace_class_heads: bool) -> LoadReport:
    state, provenance = read(path)
    adapter = adapter_for(state, path)
    translated, ignored = adapter.translate(state, detector)
    other = other_classes(translated, detector)
    hint = "is it another variant, or are its options (num_queries, num_decoder_layers, ...) others?"
    wanted = detector.state_dict() | (other.heads if other else {})
    check_fit(translated, wanted, path, detector.spec.variant, hint)
    if other and not replace_class_heads:
        raise CheckpointError(
            f"{path}: has {other.number} class logits, this detector {detector.spec.options['num_classes']}",
            f"build it with num_classes={other.number}, or train it on your classes (init_from)",
        )
    replaced = tuple(sorted(other.heads)) if other else ()
    filled = {name: tensor for name, tensor in translated.items() if name not in replaced}
    detector.load_state_dict(filled, strict=False)
    return LoadReport(path, sha256(path), adapter.name, len(filled), tuple(ignored), provenance, replaced)


def check(detector: Detector, state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a file that does not fit a detector, which may be on the meta device: names and shapes are looked at.

    Raises:
        CheckpointError: whatever does not fit is listed.
    """
    translated, _ = adapter_for(state, path).translate(state, detector)
    hint = "is it another variant, or are its options (num_classes, num_queries, ...) others?"
    check_fit(translated, detector.state_dict(), path, detector.spec.variant, hint)


def adapter_for(state: Mapping[str, Tensor], path: Path) -> Adapter:
    """Whose names these are; raises CheckpointError for names of no supported code base."""
    for adapter in ADAPTERS:
        if adapter.recognises(state):
            return adapter
    known = ", ".join(adapter.name for adapter in ADAPTERS)
    raise CheckpointError(f"{path}: parameter names of no supported code base", f"known: {known}")


def save(
    detector: Detector, path: Path, provenance: Mapping[str, str], class_names: Sequence[str] | None = None
) -> None:
    """Write a detector's weights under our names, with what it takes to build it again; written whole or not at all.

    Args:
        detector: whose weights.
        path: of the file, safetensors.
        provenance: where they come from.
        class_names: of each class logit, in their order, where they are known.
    """
    metadata = {
        "format": "detrbench",
        "variant": detector.spec.variant,
        "parts": json.dumps(dict(detector.spec.parts), sort_keys=True),
        "options": json.dumps(dict(detector.spec.options), sort_keys=True),
        **({CLASS_NAMES: json.dumps(list(class_names))} if class_names else {}),
        **provenance,
    }
    state = {name: tensor.contiguous() for name, tensor in detector.state_dict().items()}
    with replacing(path) as temporary:
        save_file(state, temporary, metadata)
        _sort_header(temporary)


def _sort_header(path: Path) -> None:
    """Rewrites the header of a safetensors file in sorted order, so that equal weights are equal files."""
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:  # the same entries take the same room; the rest is spaces, as the format has it
            file.seek(8)
            file.write(text.ljust(length))


def convert(detector: Detector, source: Path, target: Path) -> LoadReport:
    """Load an official file and write it as ours, with its origin: file name, sha256, adapter, date."""
    report = load(detector, source)
    date = datetime.date.today().isoformat()
    save(
        detector,
        target,
        {"source": source.name, "source_sha256": report.sha256, "adapter": report.adapter, "converted": date},
        class_names(source),
    )
    return report
