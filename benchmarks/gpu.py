"""The GPU of this machine in words, and how long kernels take on it.

python benchmarks/gpu.py        # device, driver, toolkit; exit 4 where torch sees no device
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch

from detrbench import environment
from detrbench.models.ops import toolchain

SHORTEST, LONGEST = 1 << 24, 1 << 34  # cycles: about 10 ms and 10 s


def words() -> str:
    """Device, driver and toolkit, one line each."""
    found = environment.capture()
    home = toolchain.cuda_home()
    nvcc = f"{toolchain.nvcc_release(home)} in {home}" if home else "not found"
    properties = torch.cuda.get_device_properties(0)
    return (
        f"device   {properties.name}, sm_{properties.major}{properties.minor}, "
        f"{properties.multi_processor_count} multiprocessors, {properties.total_memory >> 30} GiB\n"
        f"driver   {found['driver'] or 'unknown'}\n"
        f"toolkit  nvcc {nvcc}; torch {found['torch']} of CUDA {found['cuda']}"
    )


def kernel_milliseconds(work: Callable[[], object], repeats: int) -> float:
    """Mean device time of `work`, free of the time that the CPU takes to launch it.

    A kernel that only waits holds the stream until everything is queued behind it; it waits longer where the device
    was faster than the queue. What starts between two kernels of a full queue is counted, as it is in a CUDA graph.

    Raises:
        RuntimeError: `work` itself waits for the device, so that its kernels cannot be queued.
    """
    cycles = SHORTEST
    while cycles <= LONGEST:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        torch.cuda._sleep(cycles)
        start.record()
        for _ in range(repeats):
            work()
        end.record()
        queued_in_time = not start.query()
        torch.cuda.synchronize()
        if queued_in_time:
            return start.elapsed_time(end) / repeats
        cycles *= 4
    raise RuntimeError("the work waits for the device: its kernels cannot be timed apart from their launches")


def main() -> None:
    if not torch.cuda.is_available():
        print("torch sees no CUDA device", file=sys.stderr)
        sys.exit(4)
    print(words())


if __name__ == "__main__":
    main()
