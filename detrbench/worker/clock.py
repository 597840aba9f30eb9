"""The time of forwards, on the device's clock, the wall's and the process's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

Parts = Sequence["tuple[str, nn.Module]"]  # (part, a module of it)


def window(run: Callable[[], Any], device: torch.device, seconds: float) -> tuple[float, float, float, int]:
    """(device, host, CPU milliseconds a forward, forwards) of forwards that follow each other for so long."""
    forwards, gpu = 0, device.type == "cuda"
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if gpu else []
    if events:
        torch.cuda.synchronize(device)
        events[0].record()
    wall, cpu = time.perf_counter(), time.process_time()
    while forwards == 0 or time.perf_counter() - wall < seconds:
        run()
        forwards += 1
        if events and forwards % 16 == 0:  # the queue must not run ahead of the clock by more than this
            torch.cuda.synchronize(device)
    if events:
        events[1].record()
        torch.cuda.synchronize(device)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    device_ms = events[0].elapsed_time(events[1]) if events else 1000 * wall
    return device_ms / forwards, 1000 * wall / forwards, 1000 * cpu / forwards, forwards


def by_part(run: Callable[[], Any], parts: Parts, device: torch.device, rounds: int) -> dict[str, float]:
    """Median milliseconds of each part, and "other" for what runs outside of all, in passes of their own.

    A part that runs inside another (heads in the decoder, say) counts for the outer one. On a GPU every border between
    parts waits for the device, so the sum exceeds an uninstrumented forward somewhat.
    """
    taken = []
    for _ in range(rounds):
        with _stopwatches(parts, device) as times:
            start = _now(device)
            run()
            times["other"] = _now(device) - start - sum(times.values())
        taken.append(times)
    return {part: 1000 * statistics.median(times[part] for times in taken) for part in taken[0]}


@contextmanager
def _stopwatches(parts: Parts, device: torch.device) -> Iterator[dict[str, float]]:
    """Seconds by part of what runs inside the block; the dictionary fills as it runs."""
    times = dict.fromkeys((part for part, _ in parts), 0.0)
    running: list[float] = []  # when each part that is running now began, outermost first

    def before(module: nn.Module, args: object) -> None:
        running.append(_now(device))

    def after(part: str) -> Callable[[nn.Module, object, object], None]:
        def stop(module: nn.Module, args: object, out: object) -> None:
            began = running.pop()
            if not running:
                times[part] += _now(device) - began

        return stop

    hooks = [module.register_forward_pre_hook(before) for _, module in parts]
    hooks += [module.register_forward_hook(after(part)) for part, module in parts]
    try:
        yield times
    finally:
        for hook in hooks:
            hook.remove()


def _now(device: torch.device) -> float:
    """Seconds, once the device has caught up."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
