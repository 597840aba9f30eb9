"""Named, versioned rules under which figures are taken. No figure is stored without the name of its protocol.

A module here holds the protocols of the measure that it is called after, by name: `common`, ours, which is the same for
every method, and those of published tables. Imports no torch.

Raise a protocol's `version` whenever its figures change: stored results are keyed by it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from detrbench.errors import unknown_name
from detrbench.measures import CHOSEN, COMMON


def of(measure: str) -> Mapping[str, Any]:
    """The protocols of one measure by name, `common` first."""
    if measure not in CHOSEN:
        raise unknown_name("measure", measure, CHOSEN)
    found: Mapping[str, Any] = importlib.import_module(f"{__name__}.{measure}").PROTOCOLS
    return found


def get(measure: str, name: str = COMMON) -> Any:
    """A protocol by measure and name; an unknown name is a `UsageError` with the nearest match."""
    if name not in of(measure):
        raise unknown_name(f"{measure} protocol", name, of(measure))
    return of(measure)[name]
