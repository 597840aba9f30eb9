"""Compiles the kernels in `csrc/` when they are first needed, and keeps them.

A library lies in `~/.cache/detrbench/ops` (`DETRBENCH_CACHE` names another folder) under a name that hashes
all it depends on: sources, flags, compiler, torch, instruction set. One process compiles while others wait, and a
library appears under its name only when it is whole. A compiler that needs more than 15 minutes, or than
`DETRBENCH_COMPILER_SECONDS` says, is ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import torch

import detrbench
from detrbench.files import cache_folder
from detrbench.models.ops import toolchain

SOURCES = Path(detrbench.__file__).parent / "csrc"
TORCH = Path(torch.__file__).parent
UNITS = {
    "cpu": ("msda_cpu.cpp", "key_aware_cpu.cpp", "registration.cpp"),
    "cuda": ("msda_cuda.cu", "key_aware_cuda.cu", "gathered_cuda.cu", "device_levels.cu", "registration_cuda.cpp"),
}
INSTALL_CXX = "install g++ 9 or newer (Debian, Ubuntu: apt-get install g++) or set CXX to a C++ compiler"
INSTALL_NVCC = "install the CUDA toolkit of torch's major version, or set CUDA_HOME to where it is"
MOST_SECONDS = 900.0  # that a compiler may take
MORE_TIME = "set DETRBENCH_COMPILER_SECONDS to a larger number, or CXX to another compiler"
# A line in which a compiler or linker says what is wrong.
REASON = re.compile(r"\berror\b.*:|\bfatal\b.*:|cannot find|undefined reference")


class CannotBuildError(Exception):
    """Why there is no native library, and what to do about it."""

    def __init__(self, why: str, install: str) -> None:
        super().__init__(why)
        self.why = why
        self.install = install


@dataclass(frozen=True)
class Kernels:
    """What serves a device. `seconds` is how long this process compiled, 0 if the library was kept from before."""

    backend: str  # native | reference | none
    why: str | None = None
    install: str | None = None
    library: str | None = None
    compiler: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Compilation:
    """How one library is made."""

    device: str
    compilers: dict[str, list[str]]  # source suffix -> command with flags
    link: list[str]  # command, without objects and output
    link_flags: list[str]

    def key(self) -> str:
        """Changes with everything that the library depends on."""
        parts = [torch.__version__, toolchain.instruction_set(), _version(self.link[0])]
        parts += [repr(self.compilers), repr(self.link), repr(self.link_flags)]
        parts += [path.name + path.read_text() for path in sorted(SOURCES.iterdir())]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


# --- what callers ask ---------------------------------------------------------------------------------------------

_lock = threading.RLock()
_kernels: dict[str, Kernels] = {}


def native_kernels(device: str) -> bool:
    """Whether compiled kernels serve a device type. Compiles and loads them at the first call; warns if it cannot."""
    with _lock:
        if device not in _kernels:
            _kernels[device] = _provide(device)
            if _kernels[device].backend == "reference":
                warnings.warn(_slow(device, _kernels[device]), RuntimeWarning, stacklevel=2)
        return _kernels[device].backend == "native"


def _slow(device: str, kernels: Kernels) -> str:
    return (
        f"detrbench: the slow PyTorch reference runs for attention on {device}, many times slower than the native "
        f"kernels: {kernels.why}. To mend it: {kernels.install}. (`detrbench doctor` tells more.)"
    )


def status() -> dict[str, dict[str, Any]]:
    """What serves each device type and why, for `detrbench doctor`; compiles if nothing has been compiled yet.

    Returns:
        {"cpu": ..., "cuda": ...}, each with the fields of `Kernels`.
    """
    for device in ("cpu", "cuda"):
        if device == "cpu" or torch.cuda.is_available():
            native_kernels(device)
    missing = Kernels("none", why="torch sees no CUDA device")
    return {device: asdict(_kernels.get(device, missing)) for device in ("cpu", "cuda")}


def compile_cuda(capabilities: Sequence[str], folder: Path) -> Path:
    """Compile the CUDA library for capabilities such as ["8.0", "9.0"]; needs nvcc, no GPU.

    Raises:
        CannotBuildError: no toolkit, or the sources do not compile.
    """
    return _compile(_cuda_compilation(capabilities), folder)


# --- providing a library ------------------------------------------------------------------------------------------


def _provide(device: str) -> Kernels:
    if device not in UNITS:
        return Kernels("reference", why=f"there are no kernels for {device}", install="use the CPU or CUDA")
    try:
        recipe = _cpu_compilation() if device == "cpu" else _cuda_compilation(_capabilities_present())
        library, seconds = _keep(recipe)
        return Kernels("native", library=str(library), compiler=_version(recipe.link[0]), seconds=seconds)
    except CannotBuildError as error:
        return Kernels("reference", why=error.why, install=error.install)
    except OSError as error:  # a full disk, a read-only home
        return Kernels(
            "reference", why=f"{cache_folder()}: {error}", install="set DETRBENCH_CACHE to a writable folder"
        )


def _keep(recipe: Compilation) -> tuple[Path, float]:
    """Load the kept library, or compile it and keep it. Returns its path and the seconds spent compiling."""
    folder = cache_folder() / "ops"
    stem = f"{recipe.device}-{recipe.key()}"
    library, seconds = folder / f"{stem}.so", 0.0
    if _is_whole(library) and _loads(library):  # without a lock: the cache may be one that is only read
        return library, seconds
    folder.mkdir(parents=True, exist_ok=True)
    with _only_process(folder / f"{stem}.lock"):
        if _is_whole(library) and _loads(library):
            return library, seconds
        for left in folder.glob(f"{stem}.*.building"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        # Of a name of its own: compilers that outlived their process write into theirs.
        workshop = folder / f"{stem}.{os.getpid()}.building"
        try:
            with _announced(recipe.device, library) as clock:
                _place(_compile(recipe, workshop), library)
            seconds = clock.seconds
        finally:
            shutil.rmtree(workshop, ignore_errors=True)
        torch.ops.load_library(library)
    return library, seconds


def _place(made: Path, library: Path) -> None:
    """Move a library to its place, its digest first."""
    digest = made.with_suffix(".sha256")
    digest.write_text(_digest(made))
    os.replace(digest, library.with_suffix(".sha256"))
    os.replace(made, library)


def _is_whole(library: Path) -> bool:
    """Whether a library holds what was written: the system kills a process that loads a truncated one."""
    try:
        return library.with_suffix(".sha256").read_text() == _digest(library)
    except FileNotFoundError:
        return False


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _loads(library: Path) -> bool:
    try:
        torch.ops.load_library(library)
    except OSError:  # damaged, or made for a system that is no more
        return False
    return True


@contextmanager
def _only_process(path: Path) -> Iterator[None]:
    """Hold a file's lock, which the system drops when the process ends, however it ends."""
    until = time.monotonic() + _seconds()
    with path.open("w") as file:
        while not _locked(file):
            if time.monotonic() > until:
                raise CannotBuildError(f"another process has been compiling for {_seconds():g} s", MORE_TIME)
            time.sleep(0.1)
        yield


def _locked(file: IO[str]) -> bool:
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _Clock:
    seconds = 0.0


@contextmanager
def _announced(device: str, library: Path) -> Iterator[_Clock]:
    """One line on stderr: what is compiled, where it is kept, and then how long it took."""
    clock, start, end = _Clock(), time.monotonic(), "failed"
    print(f"detrbench: compiling the {device} kernels, once, into {library} ...", end=" ", file=sys.stderr, flush=True)
    try:
        yield clock
        end = "done"
    finally:
        clock.seconds = time.monotonic() - start
        print(f"{end} in {clock.seconds:.0f} s", file=sys.stderr, flush=True)


# --- compiling ----------------------------------------------------------------------------------------------------


def _cpu_compilation() -> Compilation:
    compiler = toolchain.cxx()
    if compiler is None:
        raise CannotBuildError("no C++ compiler was found", INSTALL_CXX)
    flags = [*toolchain.cxx_flags(compiler), f"-I{TORCH / 'include'}"]
    openmp = ["-fopenmp"] if "-fopenmp" in flags else []
    libraries = [f"-L{TORCH / 'lib'}", "-lc10", "-ltorch_cpu"]
    return Compilation("cpu", {".cpp": [*compiler, *flags]}, _linker(compiler, *openmp), libraries)


def _linker(compiler: list[str], *options: str) -> list[str]:
    """The command that links a library. Where a compiler brings the C++ library along, as some do, that stays hidden in
    it: else half of its calls would go to torch's copy, and a message that names a number would end the process.
    """
    hidden = "-Wl,--exclude-libs,ALL"  # of linkers that are not Apple's
    return [*compiler, "-shared", *options, *([] if sys.platform == "darwin" else [hidden])]


def _capabilities_present() -> list[str]:
    devices = range(torch.cuda.device_count())
    return sorted({"{}.{}".format(*torch.cuda.get_device_capability(device)) for device in devices})


def _cuda_compilation(capabilities: Sequence[str]) -> Compilation:
    compiler, home = toolchain.cxx(), toolchain.cuda_home()
    if compiler is None:
        raise CannotBuildError("no C++ compiler was found", INSTALL_CXX)
    if torch.version.cuda is None:
        raise CannotBuildError("this torch is built without CUDA", "install a torch with CUDA")
    release = toolchain.nvcc_release(home) if home else None
    if home is None or release is None:
        raise CannotBuildError("no CUDA toolkit (nvcc) was found", INSTALL_NVCC)
    if release.split(".")[0] != torch.version.cuda.split(".")[0]:
        raise CannotBuildError(f"nvcc is of CUDA {release}, torch of CUDA {torch.version.cuda}", INSTALL_NVCC)
    architectures = [capability.replace(".", "") for capability in capabilities]
    # `CXX` may hold options, and a program in front of the compiler.
    options = [word for word in compiler if word.startswith("-")]
    program = [word for word in compiler if word not in options][-1]
    nvcc = [str(home / "bin" / "nvcc"), "-ccbin", program, "-O3", "-std=c++17", "-lineinfo"]
    nvcc += [word for option in (*options, "-fPIC") for word in ("-Xcompiler", option)]
    nvcc += [f"-gencode=arch=compute_{number},code=sm_{number}" for number in architectures]
    flags = [*toolchain.cxx_flags(compiler), f"-I{TORCH / 'include'}", f"-I{home / 'include'}"]
    folders = [home / folder for folder in ("lib64", "lib") if (home / folder).is_dir()]
    libraries = [f"-L{TORCH / 'lib'}", "-lc10", "-lc10_cuda", "-ltorch_cpu", *(f"-L{folder}" for folder in folders)]
    libraries += [_cuda_runtime(folders)]
    return Compilation("cuda", {".cpp": [*compiler, *flags], ".cu": nvcc}, _linker(compiler), libraries)


def _cuda_runtime(folders: Sequence[Path]) -> str:
    """The linker's name for the CUDA runtime: NVIDIA's wheels have it under its version alone."""
    found = sorted(path.name for folder in folders for path in folder.glob("libcudart.so*"))
    return f"-l:{found[-1]}" if found and "libcudart.so" not in found else "-lcudart"


def _compile(recipe: Compilation, folder: Path) -> Path:
    """Compile all units at once, link them, return the library."""
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + _seconds()
    objects = {unit: folder / f"{unit}.o" for unit in UNITS[recipe.device]}
    _run_all(
        [
            [*recipe.compilers[Path(unit).suffix], "-c", str(SOURCES / unit), "-o", str(made)]
            for unit, made in objects.items()
        ],
        until,
    )
    library = folder / f"detrbench_{recipe.device}.so"
    _run_all([[*recipe.link, *map(str, objects.values()), *recipe.link_flags, "-o", str(library)]], until)
    return library


def _run_all(commands: Sequence[Sequence[str]], until: float) -> None:
    """Run commands at once to their end, which has to come before a point of the monotonic clock.

    Raises:
        CannotBuildError: one failed, or it is too late.
    """
    running = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace", start_new_session=True
        )
        for command in commands
    ]
    try:
        outputs = [process.communicate(timeout=max(until - time.monotonic(), 0))[0] for process in running]
    except subprocess.TimeoutExpired:
        raise CannotBuildError(f"the compiler took longer than {_seconds():g} s", MORE_TIME) from None
    finally:
        for process in running:
            _end(process)
    for process, output in zip(running, outputs, strict=True):
        _require_success(process.returncode, output)


def _end(process: subprocess.Popen[str]) -> None:
    """End a compiler with the programs that it has started, if it is still at work."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _seconds() -> float:
    """How long a compiler may take."""
    said = os.environ.get("DETRBENCH_COMPILER_SECONDS", "")
    try:
        return float(said or MOST_SECONDS)
    except ValueError:
        raise CannotBuildError(f"DETRBENCH_COMPILER_SECONDS: expected a number, got {said!r}", MORE_TIME) from None


def _require_success(returncode: int, output: str) -> None:
    if returncode == 0:
        return
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    first = next(filter(REASON.search, lines), lines[-1] if lines else f"exit status {returncode}")
    raise CannotBuildError(f"the compiler failed: {first}", "report the message with `detrbench doctor --json`")


def _version(compiler: str) -> str:
    """The first line of what a compiler says of itself."""
    said = toolchain.said([compiler, "--version"]).stdout
    return said.splitlines()[0] if said else compiler
