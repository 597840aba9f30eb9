"""The memory of a forward: what PyTorch's allocator hands out, and what the process holds."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def peak(run: Callable[[], Any], device: torch.device) -> float:
    """Bytes that the allocator handed out at the highest point, above what it held before."""
    if device.type != "cuda":
        return _cpu_peak(run)
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return float(torch.cuda.max_memory_allocated(device) - before)


def _cpu_peak(run: Callable[[], Any]) -> float:
    """The highest running total of the allocations and releases that the profiler saw, in their order in time."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # read at its first use; it reports a missing GPU as an error
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        run()
    events = [e for e in profile.kineto_results.events() if e.name() == "[memory]"]
    held = highest = 0
    for event in sorted(events, key=_start):
        held += event.nbytes()
        highest = max(highest, held)
    return float(highest)


def _start(event: Any) -> float:
    """When it happened; PyTorch 2.2 and older tell microseconds."""
    return event.start_ns() if hasattr(event, "start_ns") else event.start_us()


def reset_process_peak(device: torch.device) -> None:
    """The process's peak starts again from what it holds now, where the system can do that."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts again from now


def process_peak(device: torch.device) -> float:
    """Bytes: reserved by the allocator on a GPU, else the process's highest resident size."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_reserved(device))
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * float(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))
    except (OSError, StopIteration):
        highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return float(highest if sys.platform == "darwin" else 1024 * highest)
