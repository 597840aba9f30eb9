"""Where weights are kept on this machine. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from detrbench.files import at_home, cache_folder

_chosen: Path | None = None


def use(path: Path | None) -> None:
    """Keeps weights below this folder from now on; None: at the usual place."""
    global _chosen
    _chosen = path


def folder() -> Path:
    """The folder of all weights: the chosen one, else `weights/` in DETRBENCH_CACHE or in ~/.cache/detrbench."""
    return at_home(_chosen) if _chosen is not None else cache_folder() / "weights"
