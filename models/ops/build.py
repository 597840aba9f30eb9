from __future__ import annotations
from typing import Any


def native_kernels(device: str) -> bool:
    return False


def status() -> dict[str, Any]:
    return {}
