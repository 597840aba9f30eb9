"""Whether what a file holds is what a detector asks for: every name, every shape; whatever does not fit is listed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from detrbench.errors import CheckpointError

SHOWN = 8


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
        replaced: tensors that kept the detector's values, since the file has another number of classes.
    """

    path: Path
    sha256: str
    adapter: str
    loaded: int
    ignored: tuple[str, ...]
    provenance: Mapping[str, str]
    replaced: tuple[str, ...] = ()


def check_fit(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path, what: str, hint: str) -> None:
    """Refuse tensors that are not the wanted ones.

    Args:
        given: what the file holds, under our names.
        wanted: what has to be filled.
        path: the file.
        what: what is filled, in words.
        hint: what may be the matter.

    Raises:
        CheckpointError: lists what is missing, unexpected, mis-shaped or different, or what are no finite numbers.
    """
    problems = {
        # How many batches a norm has seen is no weight, and most adapters leave it out.
        "missing": [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")],
        "unexpected": [name for name in given if name not in wanted],
        "mis-shaped": [
            f"{name} {tuple(tensor.shape)} for {tuple(wanted[name].shape)}"
            for name, tensor in given.items()
            if name in wanted and tensor.shape != wanted[name].shape
        ],
        # Swin files hold an index that follows from the window's size; another one means another network.
        "different": [
            name
            for name, tensor in given.items()
            if name.endswith("_index") and name in wanted and _differs(tensor, wanted[name])
        ],
    }
    found = [f"{len(names)} {kind}: {_shorten(names)}" for kind, names in problems.items() if names]
    if found:
        raise CheckpointError(f"{path}: does not fit {what}: {'; '.join(found)}", hint)
    broken = not_finite(given)
    if broken:
        raise CheckpointError(
            f"{path}: not finite: {_shorten(broken)}", hint="its training diverged, or the file is damaged"
        )


def not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold something that is no finite number."""
    return [name for name, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]


def _differs(tensor: Tensor, wanted: Tensor) -> bool:
    return not wanted.is_meta and not torch.equal(tensor.to(wanted), wanted)


def _shorten(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
