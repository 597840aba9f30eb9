"""What autocast may not round: places, boxes and losses are computed in float32 at least."""

from __future__ import annotations

import torch
from torch import Tensor


def full_type(dtype: torch.dtype) -> torch.dtype:
    """float32 for half types, and any wider type itself."""
    return torch.promote_types(dtype, torch.float32)


def in_full(tensor: Tensor) -> Tensor:
    """(...) -> (...) in `full_type` of its type."""
    return tensor.to(full_type(tensor.dtype))
