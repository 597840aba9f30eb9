"""Which compilers this machine has, and which flags they take."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

_PATIENCE = 60.0  # seconds


def cxx() -> list[str] | None:
    """The C++ compiler as a command: what `CXX` names, else the first of g++, c++, clang++; None if there is none."""
    if sys.platform == "win32":  # the kernels need GCC's or Clang's vector extensions
        return None
    for candidate in [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "c++", "clang++"]:
        command = shlex.split(candidate)
        if shutil.which(command[0]):
            return command
    return None


def said(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    """What a compiler answers to a question; one that does not answer within a minute has failed."""
    try:
        return subprocess.run(
            command, input=text, errors="replace", capture_output=True, check=False, timeout=_PATIENCE
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", "")


@cache
def takes(compiler: tuple[str, ...], flag: str) -> bool:
    """Whether the compiler accepts a flag (clang on macOS, for one, lacks -fopenmp)."""
    command = [*compiler, flag, "-Werror", "-x", "c++", "-fsyntax-only", "-"]
    return said(command, "int main() {}").returncode == 0


def cxx_flags(compiler: list[str]) -> list[str]:
    """What the kernels are compiled with on this machine: its own instruction set, all cores.

    Without -fopenmp `at::parallel_for` is silently serial. Floating point stays IEEE but for traps and errno.
    """
    wanted = ["-std=c++20", "-fopenmp", "-march=native" if _is_x86() else "-mcpu=native", "-Wno-psabi"]
    flags = [flag for flag in wanted if takes(tuple(compiler), flag)]
    if "-std=c++20" not in flags:
        flags.append("-std=c++17")
    return ["-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math", *flags]


def _is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64", "i686")


def instruction_set() -> str:
    """Names what `-march=native` depends on, so that machines that share a home do not share a library."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return f"{platform.machine()} {flags.group(1).strip() if flags else ''}"


def cuda_home() -> Path | None:
    """The folder that holds bin/nvcc and include/: `CUDA_HOME`, else NVIDIA's wheels, else where nvcc says it lives."""
    for home in (*_homes_named(), *_homes_of_wheels(), *_homes_of_nvcc()):
        if (home / "bin" / "nvcc").exists() and (home / "include" / "cuda_runtime.h").exists():
            return home
    return None


def _homes_named() -> list[Path]:
    return [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]


def _homes_of_wheels() -> list[Path]:
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations if spec else None
    return [home for folder in folders or () for home in sorted(Path(folder).glob("cu[0-9]*"), reverse=True)]


def _homes_of_nvcc() -> list[Path]:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return [Path("/usr/local/cuda")]
    # A wrapper or link may stand on the path; nvcc itself knows its home and prints it as TOP.
    dryrun = said([nvcc, "--dryrun", "-x", "cu", os.devnull])
    top = re.search(r"^#\$ TOP=(.+)$", dryrun.stderr + dryrun.stdout, re.MULTILINE)
    homes = [Path(top.group(1).strip())] if top else []
    return [home.resolve() for home in (*homes, Path(nvcc).resolve().parent.parent)]


def nvcc_release(home: Path) -> str | None:
    """`13.0` of the nvcc in a CUDA home; None if it does not run."""
    try:
        version = said([str(home / "bin" / "nvcc"), "--version"]).stdout
    except OSError:
        return None
    release = re.search(r"release (\d+\.\d+)", version)
    return release.group(1) if release else None
