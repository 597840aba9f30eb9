"""What a killed training goes on from: the last state and the one before it, each written whole or not at all."""

from __future__ import annotations

import pickle
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from detrbench.files import replacing, share

STATES = ("state.pt", "state-before.pt")
SECONDS = 600.0  # after so long a state is kept, wherever in an epoch training is


class Checkpoint:
    """The states in a folder.

    Args:
        folder: created.
    """

    def __init__(self, folder: Path) -> None:
        self.last, self.before = (folder / name for name in STATES)
        self.kept = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the last state is so old that another is to be kept."""
        return time.monotonic() - self.kept >= SECONDS

    def write(self, content: Mapping[str, Any]) -> None:
        """Keeps a state; that which was the last is now the one before it. Raises Unwritable."""
        if self.last.is_file():
            share(self.last, self.before)
        with replacing(self.last) as temporary, temporary.open("wb", buffering=0) as target:
            torch.save(dict(content), target)  # a name it would open itself, and not say that the disk is full
        self.kept = time.monotonic()

    def read(self, notice: Callable[[str], None]) -> dict[str, Any] | None:
        """The last state, or where that is damaged, which is said, the one before it; None where there is none."""
        found = (_read(file, notice) for file in (self.last, self.before))
        return next((content for content in found if content is not None), None)


def _read(file: Path, notice: Callable[[str], None]) -> dict[str, Any] | None:
    """What was kept, or None where nothing was or where it cannot be trusted, which is said."""
    if not file.is_file():
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()  # torch.load does not compare checksums
        if damaged is None:
            content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            return content
    except (OSError, RuntimeError, ValueError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        damaged = str(error).splitlines()[0]
    notice(f"{file}: damaged ({damaged}): training goes on from the state before it, or anew")
    return None
