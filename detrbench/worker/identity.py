"""What figures of a detector depend on in the interpreter that runs it. Imports no PyTorch."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any


def describe(packages: Sequence[str], module: str | None) -> dict[str, Any]:
    """Versions, and a hash of the sources of a package or module that is named."""
    sources = None if module is None else sources_of(module)
    return {"versions": versions(packages), "sources": sources}


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Of Python, and of those of these packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def look_here() -> None:
    """Lets Python find modules in the working folder too, behind all others, as `python -m` does."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


@functools.cache
def sources_of(package: str) -> str:
    """A hash of all Python sources of a package, or of a module. Raises ModuleNotFoundError where there is none."""
    look_here()
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module {package!r} can be imported")
    origin = Path(spec.origin)
    files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"\0{path.relative_to(origin.parent)}\0".encode() + path.read_bytes())
    return digest.hexdigest()
