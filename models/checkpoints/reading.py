"""Files of weights into tensors by name. Nothing in a file is executed."""

from __future__ import annotations

import argparse
import io
import json
import pickle
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from detrbench.errors import CheckpointError
from detrbench.words import shown

CLASS_NAMES = "class_names"  # under which our own files say what their classes are called
# Where repositories keep the weights inside their file, most specific first; RT-DETR evaluates the moving average.
CONTAINERS = ("ema", "model", "state_dict", "module", "online_network_state_dict")
# How torch words its refusal to run what a pickle asks for; other complaints mean that the file is no pickle.
FORBIDDEN = ("unsupported global", "unsupported class", "unrecognized")
# All that a pickle of NumPy arrays asks for: it rebuilds them, and in old protocols their bytes from text.
_ARRAYS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
}


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file by name, and what it says of itself.

    Args:
        path: safetensors, detectron2's `.pkl` of NumPy arrays, or else what `torch.save` wrote.

    Raises:
        CheckpointError: the file is missing, truncated, not weights, or holds what would be executed.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _state_of(_read_arrays(path) if path.suffix == ".pkl" else _read_pickle(path), path), {}


def class_names(path: Path) -> list[str] | None:
    """What the classes of our own file are called, in the order of their logits; None where the file does not say.

    Raises:
        CheckpointError: safetensors that cannot be read.
    """
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            said = json.loads((file.metadata() or {}).get(CLASS_NAMES, "null"))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a complete safetensors file: {error}", "fetch the file again") from error
    return [str(name) for name in said] if isinstance(said, list) else None


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a complete safetensors file: {error}", "fetch the file again") from error


def _read_pickle(path: Path) -> Any:
    try:
        # Official files hold their command line beside the weights; nothing else may be in there.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(_unzipped(path), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if any(sign in str(error).lower() for sign in FORBIDDEN):
            raise _other_objects(path) from error
        raise CheckpointError(f"{path}: damaged, or not a checkpoint", "fetch the file again") from error
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file fails in any way
        raise CheckpointError(
            f"{path}: truncated or not a checkpoint: {_first_line(error)}", "fetch the file again"
        ) from error


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


class _ArraysOnly(pickle.Unpickler):
    """Builds NumPy arrays in dicts, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAYS:
            raise pickle.UnpicklingError(f"{FORBIDDEN[0]} {module}.{name}")
        return super().find_class(module, name)


def _read_arrays(path: Path) -> Any:
    """Detectron2's files: a plain pickle of `{"model": {name: array}}`, which `torch.load` does not read."""
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file).load()
    except pickle.UnpicklingError as error:
        if FORBIDDEN[0] in str(error):
            raise _other_objects(path) from error
        raise CheckpointError(f"{path}: damaged, or not a pickle", "fetch the file again") from error
    except Exception as error:  # a damaged pickle fails in any way
        raise CheckpointError(
            f"{path}: truncated or not a pickle: {_first_line(error)}", "fetch the file again"
        ) from error
    return _as_tensors(content)


def _as_tensors(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _as_tensors(value) for name, value in content.items()}
    numbers = isinstance(content, np.ndarray) and content.dtype.kind in "fiu"
    return torch.from_numpy(content.copy()) if numbers else content


def _other_objects(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path}: holds objects other than weights, and loading them could run code",
        "convert it to a plain state dict where you trust it",
    )


def _state_of(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors by name, from wherever in the file they lie."""
    for key in CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path}: holds no weights", f"expected a state dict, or one under {CONTAINERS}")
    for name, value in content.items():
        if not isinstance(name, str):
            raise CheckpointError(f"{path}: expected names, got {shown(name)}", "expected a state dict")
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: {shown(name)} is no tensor", "expected a state dict")
        if not _is_plain(value):
            raise CheckpointError(
                f"{path}: {shown(name)} is no plain tensor of numbers",
                "expected dense floats or integers; sparse, quantised, nested and empty (meta) tensors hold no weights",
            )
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _is_plain(value: Tensor) -> bool:
    """Whether a tensor's numbers are there, one for each place."""
    strided = value.layout is torch.strided and not value.is_nested and not value.is_quantized
    return strided and not value.is_meta and not value.is_complex()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
