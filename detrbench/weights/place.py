"""Where weights are kept on this machine. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path

_chosen: Path | None = None


def use(path: Path | None) -> None:
    """Keeps weights below this folder from now on; None: at the usual place."""
    global _chosen
    _chosen = path


def folder() -> Path:
    """The folder of all weights: the chosen one, else `weights/` in DETRBENCH_CACHE or in ~/.cache/detrbench."""
    if _chosen is not None:
        return _chosen.expanduser()
    cache = os.environ.get("DETRBENCH_CACHE")
    return (Path(cache).expanduser() if cache else Path.home() / ".cache" / "detrbench") / "weights"
