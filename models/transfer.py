"""Copies to the device that nobody waits for."""

from __future__ import annotations

import torch
from torch import Tensor


def upload(host: Tensor, device: torch.device) -> Tensor:
    """(...) of the CPU -> (...) on a device, copied behind what is queued there already: nobody waits for it.

    A plain copy would first wait for all of that, as the CPU could change its memory meanwhile.
    """
    if device.type == "cuda" and not torch.compiler.is_compiling():  # a compiled graph places its own constants
        host = host.pin_memory()
    return host.to(device, non_blocking=True)
