"""The CUDA sources translated to C++, compiled against `include/`, and put in the place of the CPU kernels.

    python -m pytest -p emulated --emulate 90 tests/models/ops        # with this folder on PYTHONPATH

runs tests of the operations on the emulated kernels: their tensors lie on the CPU, the calls go to `csrc/*.cu`.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch

from detrbench.files import cache_folder
from detrbench.models.ops import build, toolchain

HERE = Path(__file__).resolve().parent
KERNELS = tuple(name for name in build.UNITS["cuda"] if name.endswith(".cu"))
REGISTRATION = "registration_cuda.cpp"
ARCHITECTURES = (80, 90)
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g1")
ALIGNED = ("-fsanitize=alignment", "-fsanitize-undefined-trap-on-error")  # a GPU too takes no pack from anywhere

FLAGS = ("-std=c++20", "-fPIC", "-fvisibility=hidden", "-Wno-psabi", "-Wno-attributes", "-Wno-unknown-pragmas", "-O1")
FLAGS += ("-U_FORTIFY_SOURCE", f"-I{HERE / 'include'}", f"-I{build.TORCH / 'include'}")

LAUNCH = re.compile(r"(\w+<[^<>;]*>)\s*<<<(.*?)>>>\s*\((.*?)\);", re.DOTALL)
SHARED = re.compile(r"__shared__\s+([^;=]+?)\s*\b(\w+)((?:\[[^\]]+\])*);")


def translated(name: str, text: str, architecture: int) -> str:
    """C++ that g++ takes for a source of `csrc/`, line by line as it was.

    Raises:
        ValueError: the source has no longer what must be translated.
    """
    if name == REGISTRATION:
        text = _replaced(text, "TORCH_LIBRARY_IMPL(detrbench, CUDA", "TORCH_LIBRARY_IMPL(detrbench, CPU")
        return _replaced(text, "shapes_.is_cpu() && starts_.is_cpu()", "emulation::levels_on_host()")
    text, launches = LAUNCH.subn(r"emulation::launch(\2, [&] { \1(\3); });", text)
    if launches == 0 or "<<<" in text:
        raise ValueError(f"{name}: expected launches that the emulation can read, found {launches}")
    text = SHARED.sub(r"static \1 \2\3; emulation::fill_shared(\2);", text)
    if "__shared__" in text:
        raise ValueError(f"{name}: expected shared memory that the emulation can read")
    return f'#include "emulation.h"\n#define __CUDA_ARCH__ {10 * architecture}\n#line 1 "{name}"\n{text}'


def _replaced(text: str, was: str, now: str) -> str:
    if text.count(was) != 1:
        raise ValueError(f"expected `{was}` once in {REGISTRATION}, found it {text.count(was)} times")
    return text.replace(was, now)


def library(architecture: int, sanitized: bool = False, sources: Path = build.SOURCES) -> Path:
    """The emulated kernels of one compute capability, compiled unless they are kept from before.

    Args:
        architecture: 80 or 90; kernels may differ from one to the other.
        sanitized: with AddressSanitizer and UndefinedBehaviorSanitizer.
        sources: `csrc/`, or a copy with a mistake in it.

    Raises:
        build.CannotBuildError: there is no compiler, or the sources do not compile.
    """
    compiler = toolchain.cxx()
    if compiler is None:
        raise build.CannotBuildError("no C++ compiler was found", build.INSTALL_CXX)
    flags = [*FLAGS, *(SANITIZERS if sanitized else ALIGNED), f"-I{sources}"]
    texts = {name: (sources / name).read_text() for name in (*KERNELS, REGISTRATION)}
    units = {f"{name}.cpp": translated(name, text, architecture) for name, text in texts.items()}
    units["emulation.cpp"] = (HERE / "emulation.cpp").read_text()
    headers = [path.read_text() for path in sorted(HERE.glob("include/**/*.h"))]
    headers += [path.read_text() for path in sorted(sources.glob("*.h"))]
    for_kernels = [path.read_text() for path in sorted(sources.glob("*.cuh"))]
    folder = cache_folder() / "emulation"
    folder.mkdir(parents=True, exist_ok=True)
    command = [*compiler, *flags]
    # The folder of the sources itself, the last word of the command, makes no difference.
    known = (torch.__version__, command[:-1], headers)
    keys = {name: _key(known, text, for_kernels if ".cu." in name else ()) for name, text in units.items()}
    kept = folder / f"cuda-{architecture}-{_key(keys)}.so"
    if not kept.exists():
        with build._only_process(kept.with_suffix(".lock")), tempfile.TemporaryDirectory(dir=folder) as workshop:
            objects = [folder / f"{Path(name).stem}-{key}.o" for name, key in keys.items()]
            _compile(command, dict(zip(objects, units.items(), strict=True)), Path(workshop))
            link = [*compiler, "-shared", *(SANITIZERS if sanitized else ()), *map(str, objects)]
            _link([*link, f"-L{build.TORCH / 'lib'}", "-lc10", "-ltorch_cpu"], kept, Path(workshop))
    return kept


def alone(source: Path, folder: Path) -> Path:
    """One CUDA source that needs nothing of `csrc/` nor of torch, compiled into a folder as a library for ctypes.

    Raises:
        build.CannotBuildError: there is no compiler, or the source does not compile.
    """
    compiler = toolchain.cxx()
    if compiler is None:
        raise build.CannotBuildError("no C++ compiler was found", build.INSTALL_CXX)
    unit, made = folder / f"{source.name}.cpp", folder / f"{source.stem}.so"
    unit.write_text(translated(source.name, source.read_text(), ARCHITECTURES[-1]))
    command = [*compiler, *FLAGS, *ALIGNED, "-shared", str(unit), str(HERE / "emulation.cpp"), "-o", str(made)]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    build._require_success(done.returncode, done.stderr)
    return made


def _key(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _compile(command: list[str], objects: dict[Path, tuple[str, str]], workshop: Path) -> None:
    """Make the objects that are not kept yet, all at once, each from a name and a text."""
    running = {}
    for target, (name, text) in objects.items():
        if not target.exists():
            (workshop / name).write_text(text)
            made = workshop / target.name
            unit = [*command, "-c", str(workshop / name), "-o", str(made)]
            running[target] = made, subprocess.Popen(unit, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = {target: process.communicate()[0] for target, (_, process) in running.items()}
    for target, (made, process) in running.items():
        build._require_success(process.returncode, said[target])
        os.replace(made, target)


def _link(command: list[str], kept: Path, workshop: Path) -> None:
    made = workshop / kept.name
    linked = subprocess.run([*command, "-o", str(made)], text=True, capture_output=True, check=False)
    build._require_success(linked.returncode, linked.stderr)
    os.replace(made, kept)


class Emulation:
    """A library in the place of the CPU kernels, for the rest of this process."""

    def __init__(self, path: Path) -> None:
        torch.ops.load_library(path)
        build._kernels["cpu"] = build.Kernels("native", library=str(path), compiler="CUDA emulation")
        self._library = ctypes.CDLL(str(path))
        self._library.emulation_launches.restype = ctypes.c_long

    def launches(self) -> int:
        """Kernels started so far."""
        return int(self._library.emulation_launches())

    def seed(self, seed: int) -> None:
        """Another order of lanes and blocks."""
        self._library.emulation_seed(ctypes.c_uint(seed))

    def levels(self, on_host: bool) -> None:
        """Whether the kernels get their levels with the launch, or read and check them on the device."""
        self._library.emulation_levels(ctypes.c_int(on_host))


# --- as a plugin of pytest ------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("emulated")
    group.addoption("--emulate", required=True, help="a library that `library` has made")
    group.addoption("--levels", choices=("host", "device"), default="host", help="where kernels find their levels")
    group.addoption("--lanes-seed", type=int, default=1, help="for the order of lanes and blocks")


_emulation: list[Emulation] = []


def pytest_configure(config: pytest.Config) -> None:
    emulation = Emulation(Path(config.getoption("--emulate")))
    emulation.levels(config.getoption("--levels") == "host")
    emulation.seed(config.getoption("--lanes-seed"))
    _emulation.append(emulation)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is promised of the CPU kernels alone: the same bits with any number of threads."""
    left_out = [item for item in items if "threads" in getattr(item, "fixturenames", ())]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"{_emulation[0].launches()} emulated launches")
