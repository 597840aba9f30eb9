"""A detector small enough for tests of weights, and how a command tells what is wrong."""

from __future__ import annotations

from typing import Any

MODEL = "deformable_detr_tiny"
TINY: dict[str, Any] = {"hidden_dim": 32, "width": 8, "ffn_dim": 48, "num_queries": 5, "num_classes": 4}


def one_line(err: str, *parts: str) -> bool:
    """Whether an error is one line, and perhaps a hint, with these parts."""
    lines = err.strip().splitlines()
    told = all(part in err for part in parts)
    return told and lines[0].startswith("error: ") and all(line.startswith("hint: ") for line in lines[1:])
