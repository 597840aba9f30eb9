"""What NVIDIA's management library says while a GPU is timed: throttling, foreign processes, other clocks.

Needs the optional package nvidia-ml-py; without it, or on a CPU, nothing is watched and nothing is said.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# Reasons for reduced clocks that spoil a timing; idling and settings of the user's own are none.
_THROTTLING = {
    "nvmlClocksEventReasonSwPowerCap": "power cap",
    "nvmlClocksThrottleReasonSwPowerCap": "power cap",
    "nvmlClocksThrottleReasonHwSlowdown": "hardware slowdown",
    "nvmlClocksThrottleReasonHwThermalSlowdown": "heat (hardware)",
    "nvmlClocksThrottleReasonHwPowerBrakeSlowdown": "power brake",
    "nvmlClocksEventReasonSwThermalSlowdown": "heat (driver)",
    "nvmlClocksThrottleReasonSwThermalSlowdown": "heat (driver)",
}


def name(device: torch.device) -> str:
    """The device as a reader knows it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({_processor()})"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@contextmanager
def watched(device: torch.device) -> Iterator[list[str]]:
    """A list that holds, after the block, what disturbed the GPU during it."""
    remarks: list[str] = []
    handle = _handle(device)
    yield remarks
    if handle is not None:
        remarks += [*_throttling(handle), *_foreign_processes(handle)]


def _handle(device: torch.device) -> Any:
    if device.type != "cuda":
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        return pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
    except Exception:  # not installed, no driver, a slice of a GPU: timing goes on unwatched
        return None


def _throttling(handle: Any) -> list[str]:
    import pynvml

    try:
        reasons = pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    except pynvml.NVMLError:
        return []
    found = {text for constant, text in _THROTTLING.items() if reasons & getattr(pynvml, constant, 0)}
    return [f"the GPU is throttled: {', '.join(sorted(found))}"] if found else []


def _foreign_processes(handle: Any) -> list[str]:
    import pynvml

    try:
        others = [p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle) if p.pid != os.getpid()]
    except pynvml.NVMLError:
        return []
    # In a container process ids differ from the driver's, so one entry may be this very process.
    return [f"{len(others)} processes run on this GPU"] if len(others) > 1 else []
