"""The modules that a detector's figures are split by."""

from __future__ import annotations

from typing import Any

from torch import nn


def modules_by_part(detector: nn.Module) -> list[tuple[str, nn.Module]]:
    """(part, a module of it), in the order of `detector.parts`; a part of ours is one module."""
    parts: Any = detector.parts
    return [(part, each) for part, held in parts.items() for each in (held if isinstance(held, list) else [held])]
