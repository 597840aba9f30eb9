"""What the host hands to the device without anyone waiting for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def upload(host: Tensor, device: torch.device) -> Tensor:
    """(...) of the CPU -> (...) on a device, copied behind what is queued there already: nobody waits for it.

    A plain copy would first wait for all of that, as the CPU could change its memory meanwhile.
    """
    if device.type == "cuda" and not torch.compiler.is_compiling():  # a compiled graph places its own constants
        host = host.pin_memory()
    return host.to(device, non_blocking=True)


def written(numbers: Sequence[float], device: torch.device, dtype: torch.dtype = torch.int64) -> Tensor:
    """(n,) a few numbers of the host, which the device writes itself: for what every forward needs.

    A CUDA graph would repeat a copy from memory in which something else may stand by then.
    """
    return torch.cat([torch.full((1,), number, dtype=dtype, device=device) for number in numbers])
