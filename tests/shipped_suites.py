"""The suites that come along, each read and expanded once for all tests of a process."""

from __future__ import annotations

import functools

from detrbench.suite import loading
from detrbench.suite.cells import Cell

load = functools.cache(loading.load)


@functools.cache
def cells(name: str, scale: str) -> list[Cell]:
    """The cells of a suite at one scale."""
    return load(name).cells(scale)
