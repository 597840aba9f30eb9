"""What the machine did while something was timed: of an NVIDIA GPU through its management library, of CPUs the kernel's
counters. NVIDIA needs the optional package nvidia-ml-py; without it a GPU is not watched and nothing is said of it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
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


class Watch:
    """Looks at the machine before, during and after a timing; a look happens between samples, never within one."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.handle = _nvml_handle(device)
        self.faults = _page_faults()
        self.started = time.perf_counter(), time.process_time()
        self.looks = [self.look()]

    def again(self) -> None:
        """One more look."""
        self.looks.append(self.look())

    def look(self) -> dict[str, Any]:
        """Load of the machine, and on NVIDIA clocks (MHz), power (W), temperature (degrees Celsius), processes."""
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        return {"load": load, **(_gpu_state(self.handle) if self.handle is not None else {})}

    def joules(self) -> float | None:
        """Energy that the GPU has used since its driver started; None where it does not say."""
        if self.handle is None:
            return None
        import pynvml

        try:
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)) / 1000
        except pynvml.NVMLError:
            return None

    def summary(self) -> dict[str, Any]:
        """As stored with a record: the first and last look, ranges of those between, and the kernel's counters."""
        self.again()
        minor, major, switched = (after - before for before, after in zip(self.faults, _page_faults()))
        wall, cpu = time.perf_counter() - self.started[0], time.process_time() - self.started[1]
        numbers = {k for look in self.looks for k, v in look.items() if isinstance(v, float)}
        during = {
            key: [float(np.quantile([look[key] for look in self.looks if key in look], q)) for q in (0, 0.5, 1)]
            for key in sorted(numbers)
        }
        return {
            "before": self.looks[0],
            "after": self.looks[-1],
            "during_min_median_max": during,
            "throttled": sorted({reason for look in self.looks for reason in look.get("throttled", [])}),
            "page_faults_minor": minor,
            "page_faults_major": major,
            "involuntary_switches": switched,
            "wall_seconds": round(wall, 3),
            "cpu_seconds": round(cpu, 3),
        }


def remarks(summary: dict[str, Any]) -> list[str]:
    """What in a summary makes its timings doubtful, in words."""
    found = []
    if summary["throttled"]:
        found.append(f"the GPU was throttled: {', '.join(summary['throttled'])}")
    # In a container process ids differ from the driver's, so one of the processes may be this very one.
    others = max(look.get("processes", 0) for look in (summary["before"], summary["after"])) - 1
    if others > 0:
        found.append(f"{others + 1} processes ran on this GPU")
    load = summary["during_min_median_max"]["load"][1]
    if load > 1.5 * (os.cpu_count() or 1):
        found.append(f"load average {load:.1f} on {os.cpu_count()} CPUs: other processes run")
    if summary["page_faults_major"] > 100:
        found.append(f"{summary['page_faults_major']} pages were read from disk: memory is short")
    return found


@contextlib.contextmanager
def pinned(device: torch.device) -> Iterator[None]:
    """On a CPU keeps all threads of this process on as many cores as PyTorch computes with; elsewhere does nothing."""
    if device.type != "cpu" or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    _set_affinity(set(sorted(before)[: torch.get_num_threads()]))
    try:
        yield
    finally:
        _set_affinity(before)


def _set_affinity(cores: set[int]) -> None:
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            os.sched_setaffinity(int(thread), cores)


def _page_faults() -> tuple[int, int, int]:
    """(minor, major, involuntary context switches) of this process so far."""
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt, usage.ru_majflt, usage.ru_nivcsw


def _nvml_handle(device: torch.device) -> Any:
    if device.type != "cuda":
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        return pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
    except Exception:  # not installed, no driver, a slice of a GPU: timing goes on unwatched
        return None


def _gpu_state(handle: Any) -> dict[str, Any]:
    import pynvml

    queries = {
        "sm_mhz": lambda: float(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)),
        "memory_mhz": lambda: float(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM)),
        "watts": lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1000,
        "celsius": lambda: float(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),
        "throttled": lambda: _reasons(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)),
        "processes": lambda: len(pynvml.nvmlDeviceGetComputeRunningProcesses(handle)),
    }
    state = {}
    for key, query in queries.items():
        with contextlib.suppress(pynvml.NVMLError):  # not every GPU tells everything
            state[key] = query()
    return state


def _reasons(bits: int) -> list[str]:
    import pynvml

    return sorted({text for constant, text in _THROTTLING.items() if bits & getattr(pynvml, constant, 0)})
