"""Weights in and out: official files of the supported repositories, and ours (safetensors with provenance).

Loading is strict. Every name in the file must lead to one of the detector's, every one of the detector's must be
given, shapes must agree, and names that share a tensor in the official model must hold the same values; whatever does
not fit is listed.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from detrbench.errors import CheckpointError
from detrbench.files import replacing, sha256
from detrbench.models.checkpoints import detrex, original, own, transformers
from detrbench.models.checkpoints.adapter import Adapter

if TYPE_CHECKING:
    from detrbench.models.detector import Detector

ADAPTERS: tuple[Adapter, ...] = (own.ADAPTER, original.ADAPTER, detrex.ADAPTER, transformers.ADAPTER)
# Where repositories keep the weights inside their file, most specific first.
CONTAINERS = ("model", "state_dict", "module")
SHOWN = 8
# How torch words its refusal to run what a pickle asks for; other complaints mean that the file is no pickle.
FORBIDDEN = ("unsupported global", "unsupported class", "unrecognized")


@dataclass(frozen=True)
class LoadReport:
    """What was loaded.

    Attributes:
        path: the file.
        sha256: of its bytes.
        adapter: whose names it used.
        loaded: number of tensors of the detector that were filled.
        ignored: names that carry no weight, such as batch counters.
        provenance: what the file says of itself.
    """

    path: Path
    sha256: str
    adapter: str
    loaded: int
    ignored: tuple[str, ...]
    provenance: Mapping[str, str]


def load(detector: Detector, path: Path) -> LoadReport:
    """Fill a detector from a file; its parameters keep their type and device.

    Raises:
        CheckpointError: the file is missing, truncated, not weights, or does not fit.
    """
    state, provenance = read(path)
    adapter = adapter_for(state, path)
    translated, ignored = check(detector, state, path)
    _check_finite(translated, path)
    detector.load_state_dict(translated)
    return LoadReport(path, sha256(path), adapter.name, len(translated), tuple(ignored), provenance)


def check(detector: Detector, state: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The file's tensors under the detector's names, and the names that carry no weight.

    The detector may be on the meta device: names and shapes are all that is looked at.

    Raises:
        CheckpointError: they do not fit; whatever does not is listed.
    """
    translated, ignored = adapter_for(state, path).translate(state, detector)
    _check_fit(translated, detector, path)
    return translated, ignored


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file by name, and what it says of itself. Nothing in the file is executed."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _read_pickle(path), {}


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a complete safetensors file: {error}", "fetch the file again") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        # Official files hold their command line beside the weights; nothing else may be in there.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(_unzipped(path), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if any(sign in str(error).lower() for sign in FORBIDDEN):
            raise CheckpointError(
                f"{path}: holds objects other than weights, and loading them could run code",
                "convert it to a plain state dict where you trust it",
            ) from error
        raise CheckpointError(f"{path}: damaged, or not a checkpoint", "fetch the file again") from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path}: truncated or not a checkpoint: {_first_line(error)}", "fetch the file again"
        ) from error
    for key in CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path}: holds no weights", f"expected a state dict, or one under {CONTAINERS}")
    others = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(f"{path}: {others[0]!r} is no tensor", "expected a state dict")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _unzipped(path: Path) -> Path | io.BytesIO:
    """The file itself, or the one checkpoint in an archive, as Focus-DETR releases them."""
    if not zipfile.is_zipfile(path):
        return path
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if any(PurePosixPath(name).name == "data.pkl" for name in names):  # what torch.save writes is an archive too
            return path
        inside = [name for name in names if name.endswith((".pth", ".pt", ".bin"))]
        if len(inside) != 1:
            raise CheckpointError(f"{path}: expected an archive of one checkpoint, got {len(inside)}", "unpack it")
        return io.BytesIO(archive.read(inside[0]))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def adapter_for(state: Mapping[str, Tensor], path: Path) -> Adapter:
    """Whose names these are; raises CheckpointError for names of no supported code base."""
    for adapter in ADAPTERS:
        if adapter.recognises(state):
            return adapter
    known = ", ".join(adapter.name for adapter in ADAPTERS)
    raise CheckpointError(f"{path}: parameter names of no supported code base", f"known: {known}")


def _check_fit(translated: Mapping[str, Tensor], detector: Detector, path: Path) -> None:
    wanted = detector.state_dict()
    problems = {
        "missing": [name for name in wanted if name not in translated],
        "unexpected": [name for name in translated if name not in wanted],
        "mis-shaped": [
            f"{name} {tuple(tensor.shape)} for {tuple(wanted[name].shape)}"
            for name, tensor in translated.items()
            if name in wanted and tensor.shape != wanted[name].shape
        ],
        # Swin files hold an index that follows from the window's size; another one means another network.
        "different": [
            name
            for name, tensor in translated.items()
            if name.endswith("_index") and _differs(tensor, wanted.get(name))
        ],
    }
    found = [f"{len(names)} {kind}: {_shorten(names)}" for kind, names in problems.items() if names]
    if found:
        raise CheckpointError(
            f"{path}: does not fit {detector.spec.variant}: {'; '.join(found)}",
            "is it another variant, or are its options (num_classes, num_queries, ...) others?",
        )


def _check_finite(state: Mapping[str, Tensor], path: Path) -> None:
    broken = [name for name, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if broken:
        raise CheckpointError(
            f"{path}: not finite: {_shorten(broken)}", hint="its training diverged, or the file is damaged"
        )


def _differs(tensor: Tensor, wanted: Tensor | None) -> bool:
    return wanted is not None and not wanted.is_meta and not torch.equal(tensor.to(wanted), wanted)


def _shorten(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def save(detector: Detector, path: Path, provenance: Mapping[str, str]) -> None:
    """Write a detector's weights under our names, with what it takes to build it again; written whole or not at all."""
    metadata = {
        "format": "detrbench",
        "variant": detector.spec.variant,
        "parts": json.dumps(dict(detector.spec.parts), sort_keys=True),
        "options": json.dumps(dict(detector.spec.options), sort_keys=True),
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
    )
    return report
