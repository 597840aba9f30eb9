"""Where a figure was taken: software, hardware, and variables that change either. Importing this imports no torch."""

from __future__ import annotations

import functools
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import detrbench
from detrbench.errors import EnvironmentLacking, UsageError
from detrbench.words import shown

_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
    "DETRBENCH_OP",
    "KMP_AFFINITY",
    "MKL_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "OMP_PROC_BIND",
    "PYTORCH_CUDA_ALLOC_CONF",
)

# What a timing depends on; a record taken under another of these is no longer "done".
_TIMING = ("torch", "cpu", "cores", "threads", "gpus", "driver", "cuda", "variables")


def capture() -> dict[str, Any]:
    """Versions, hardware and variables of this process. Imports torch."""
    import torch

    cuda = torch.cuda.is_available()
    return capture_without_torch() | {
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "onnxruntime": version("onnxruntime"),
        "openvino": version("openvino"),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
        "driver": _driver() if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def capture_without_torch() -> dict[str, Any]:
    """What is known of this process without PyTorch."""
    return {
        "detrbench": detrbench.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": cpu_model(),
        "cores": cores(),
    }


def timing_identity(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an environment that timings and memory depend on."""
    return {name: environment.get(name) for name in _TIMING}


def hardware(environment: Mapping[str, Any], device: str | None) -> str:
    """What timings of a record depend on, as a name: `nvidia-h200`, `intel-xeon-platinum-8175m-2-cores`."""
    gpus = environment.get("gpus") or []
    found = re.fullmatch(r"cuda:?(\d*)", device or "")
    if found and int(found[1] or 0) < len(gpus):
        text = str(gpus[int(found[1] or 0)])
    else:
        text = f"{environment.get('cpu') or 'cpu'} {environment.get('cores') or '?'} cores"
    text = re.sub(r"\((r|tm)\)|@.*?ghz|\bcpu\b", " ", text.lower())
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")


def pick_device(asked: str) -> str:
    """`auto` is the GPU where there is one.

    Raises:
        UsageError: no such kind of device.
        EnvironmentLacking: this machine has none of it.
    """
    import torch

    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", asked):
        raise UsageError(f"--device: expected auto, cpu, cuda or cuda:N, got {shown(asked)}")

    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked.startswith("cuda") and not torch.cuda.is_available():
        why = "this PyTorch was built without CUDA" if torch.version.cuda is None else "PyTorch sees no CUDA device"
        raise EnvironmentLacking(f"--device {asked}: {why}", hint="detrbench doctor")
    number = int(asked.partition(":")[2] or 0)
    if asked.startswith("cuda") and number >= torch.cuda.device_count():
        raise EnvironmentLacking(f"--device {asked}: there are {torch.cuda.device_count()}, counted from 0")
    return asked


@functools.cache
def cpu_model() -> str:
    """The processor's name as its maker writes it."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def commit() -> str | None:
    """The commit of the checkout that detrbench runs from, with `+` where it was changed; None for a wheel."""
    top = Path(detrbench.__file__).resolve().parent.parent
    if not (top / ".git").exists():
        return None
    head = _output("git", "-C", str(top), "rev-parse", "--short=12", "HEAD")
    changed = _output("git", "-C", str(top), "status", "--porcelain", "--untracked-files=no")
    return f"{head}{'+' if changed else ''}" if head else None


@functools.cache
def _driver() -> str | None:
    return _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").partition("\n")[0] or None


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def version(package: str) -> str | None:
    """Of an installed package; None where it is missing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
