"""A detector that a user's own function makes."""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

from detrbench.errors import UsageError
from detrbench.external.detector import ExternalDetector
from detrbench.external.sources import Source
from detrbench.worker import identity


def build(source: Source, options: dict[str, Any]) -> ExternalDetector:
    """Calls the function with the row's options; a module that it returns is a detector without further words.

    Raises:
        UsageError: there is no such function, or it returns something else.
    """
    identity.look_here()
    module, _, function = source.name.partition(":")
    found = importlib.import_module(module)
    if not callable(getattr(found, function, None)):
        raise UsageError(f"{source.text}: {module} has no function {function!r}")
    made = getattr(found, function)(**options)
    if isinstance(made, nn.Module):
        return ExternalDetector(made)
    if not isinstance(made, ExternalDetector):
        kind = type(made).__name__
        raise UsageError(f"{source.text}: expected an ExternalDetector or a torch.nn.Module, got {kind}")
    return made
