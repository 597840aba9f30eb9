"""Compiling the kernels: kept, shared, interrupted, impossible. A shell script plays the compiler."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import inspect
import os
import re
import select
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from detrbench import files
from detrbench.models import ops
from detrbench.models.ops import build, toolchain


def use() -> None:
    """One call of the operation, then what status says of the CPU."""
    value = torch.ones(1, 6, 1, 4)
    shapes, starts = torch.tensor([[2, 3]]), torch.tensor([0])
    output = ops.msda(value, shapes, starts, torch.full((1, 2, 1, 1, 1, 2), 0.5), torch.ones(1, 2, 1, 1, 1))
    assert output.eq(1).all(), output
    print(ops.status()["cpu"])


# Logs each call; "links" by copying a library that the real compiler made. Its output is the last argument, by name:
# the tenth would have to be written ${10}, since a shell reads $10 as $1 and a 0 (-shared0, a file beside the caller).
COMPILER = """#!/bin/sh
[ "$1" = --version ] && echo "a script 1.0" && exit 0
for last; do true; done
case "$*" in
*-fsyntax-only*) exit 0 ;;
*-shared*) echo link >> {log}; {link}; cp {library} "$last" ;;
*) echo compile >> {log}; {compile} ;;
esac
"""


class Machine:
    """A cache of its own and a scripted compiler, for this process and for others; all of them work in `here`."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.log, self.cache, self.here = folder, folder / "log", folder / "cache", folder / "here"
        self.here.mkdir()
        patch.chdir(self.here)  # what a script writes under a wrong name stays out of the checkout
        patch.setenv("DETRBENCH_CACHE", str(self.cache))
        patch.setenv("CXX", str(folder / "c++"))
        patch.setattr(build.torch.ops, "load_library", only_elf)  # the kernels are in this process already
        self.script()

    def script(self, compile: str = "true", link: str = "true") -> None:
        """Let the compiler run shell commands when it compiles and links."""
        path = self.folder / "c++"
        path.write_text(COMPILER.format(log=self.log, compile=compile, link=link, library=real_library()))
        path.chmod(0o755)

    def start(self, **environment: str) -> int:
        """Another process that uses the operation, and has no kernels yet; its number, which is its group's too."""
        child = os.fork()  # a new one would import PyTorch for seconds
        if child == 0:
            code = 1
            try:
                os.setsid()
                os.environ.update(environment)
                build._kernels.clear()
                warnings.simplefilter("always")
                warnings.showwarning = lambda message, *_, **__: print(message, file=sys.stderr)
                with (
                    (self.folder / "stdout").open("w") as output,
                    (self.folder / "stderr").open("w") as errors,
                    contextlib.redirect_stdout(output),
                    contextlib.redirect_stderr(errors),
                ):
                    use()
                code = 0
            finally:
                os._exit(code)
        return child

    def run(self, **environment: str) -> tuple[str, str]:
        code = os.waitstatus_to_exitcode(os.waitpid(self.start(**environment), 0)[1])
        output, errors = ((self.folder / name).read_text() for name in ("stdout", "stderr"))
        assert code == 0, errors
        return output, errors

    def links(self) -> int:
        return self.log.read_text().split().count("link") if self.log.exists() else 0

    def libraries(self) -> list[Path]:
        return list(self.cache.glob("ops/*.so"))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    real_library()
    machine = Machine(tmp_path, monkeypatch)
    yield machine
    assert list(machine.here.iterdir()) == [], "compiling wrote into the current folder"


@functools.cache  # a process that has no kernels yet cannot ask for them
def real_library() -> str:
    library = ops.status()["cpu"]["library"]
    assert library is not None, ops.status()["cpu"]
    return str(library)


def only_elf(library: Path) -> None:
    if library.read_bytes()[:4] != Path(real_library()).read_bytes()[:4]:
        raise OSError("invalid header")


def test_a_library_is_compiled_once_and_kept(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    assert build._provide("cpu").backend == "native"
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("detrbench: compiling the cpu kernels, once, into ")
    assert " ... done in 0 s" in lines[0]
    kept = build._provide("cpu")
    assert (kept.backend, kept.seconds, kept.compiler) == ("native", 0.0, "a script 1.0")
    assert capfd.readouterr().err == ""
    assert machine.links() == 1


def test_whoever_comes_second_waits(machine: Machine) -> None:
    machine.script(link="sleep 1")
    with ThreadPoolExecutor() as pool:
        provided = list(pool.map(build._provide, ["cpu"] * 3))
    assert [kernels.backend for kernels in provided] == ["native"] * 3
    assert machine.links() == 1


def test_a_killed_compilation_leaves_nothing_broken(machine: Machine) -> None:
    machine.script(link=f'head -c 1000 {real_library()} > "$last"; sleep 60')
    child = machine.start()
    deadline = time.monotonic() + 60
    while machine.links() == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert machine.links() == 1
    assert machine.libraries() == []
    machine.script()
    assert "'backend': 'native'" in machine.run()[0]
    assert not list(machine.cache.glob("ops/*.building"))


@pytest.mark.full
def test_a_new_process_loads_what_is_kept(machine: Machine) -> None:
    program = f"import torch; from detrbench.models import ops\n{inspect.getsource(use)}\nuse()"
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert "'backend': 'native'" in done.stdout
    assert machine.links() == 1


def truncated(library: Path) -> None:
    library.write_bytes(library.read_bytes()[:1000])


def alien(library: Path) -> None:
    library.write_text("made for another system")
    library.with_suffix(".sha256").write_text(build._digest(library))


@pytest.mark.parametrize("damage", [truncated, alien])
def test_a_damaged_library_is_compiled_again(machine: Machine, damage: Callable[[Path], None]) -> None:
    build._provide("cpu")
    (library,) = machine.libraries()
    damage(library)
    assert build._provide("cpu").backend == "native"
    assert machine.links() == 2
    assert library.read_bytes() == Path(real_library()).read_bytes()


def test_without_a_compiler_the_reference_runs_and_says_so(machine: Machine) -> None:
    output, errors = machine.run(CXX="", PATH="/nowhere")
    assert "'backend': 'reference', 'why': 'no C++ compiler was found', 'install': 'install g++" in output
    assert errors.count("the slow PyTorch reference runs") == 1
    assert "no C++ compiler was found" in errors


def test_a_compiler_that_is_named_and_missing_is_not_replaced(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "/nowhere/g++")
    assert build._provide("cpu").why == "no C++ compiler was found"


def test_a_kept_library_is_used_where_nothing_can_be_written(machine: Machine) -> None:
    build._provide("cpu")
    (library,) = machine.libraries()
    lock = library.with_suffix(".lock")
    lock.unlink()
    lock.mkdir()  # stands for a folder that is only read, which root could write into
    assert build._provide("cpu").backend == "native"


@pytest.mark.parametrize("step", ["compile", "link"])
def test_a_compiler_that_never_ends_is_ended(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, step: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pipe = machine.folder / "pipe"
    os.mkfifo(pipe)
    told = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    machine.script(**{step: f"(exec 9> {pipe} > /dev/null 2>&1; echo >&9; sleep 60) & exec sleep 60"})
    monkeypatch.setenv("DETRBENCH_COMPILER_SECONDS", "1")
    kernels = build._provide("cpu")
    assert (kernels.backend, kernels.why) == ("reference", "the compiler took longer than 1 s")
    assert "DETRBENCH_COMPILER_SECONDS" in str(kernels.install)
    assert " ... failed in " in capfd.readouterr().err
    said: list[bytes] = []
    while not said or said[-1]:  # what it had started has ended, too: nobody holds the other end
        assert select.select([told], [], [], 10)[0], "still at work"
        said.append(os.read(told, 99))
    os.close(told)
    assert said[0]  # it had begun
    assert not list(machine.cache.glob("ops/*.building"))


def test_whoever_waits_for_another_process_does_so_for_a_while(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    build._provide("cpu")
    (library,) = machine.libraries()
    truncated(library)
    monkeypatch.setenv("DETRBENCH_COMPILER_SECONDS", "0.2")
    with build._only_process(library.with_suffix(".lock")):
        assert build._provide("cpu").why == "another process has been compiling for 0.2 s"


def test_a_limit_that_is_no_number_is_told(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETRBENCH_COMPILER_SECONDS", "soon")
    assert build._provide("cpu").why == "DETRBENCH_COMPILER_SECONDS: expected a number, got 'soon'"


def test_a_compiler_that_fails_is_quoted(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    machine.script(compile='echo "msda_cpu.cpp:1: fatal error: no such header"; exit 1')
    kernels = build._provide("cpu")
    assert kernels.backend == "reference"
    assert kernels.why == "the compiler failed: msda_cpu.cpp:1: fatal error: no such header"
    assert " ... failed in 0 s" in capfd.readouterr().err
    assert machine.libraries() == []


def test_a_cache_that_cannot_be_written_is_named(machine: Machine) -> None:
    machine.cache.write_text("a file where the folder should be")
    kernels = build._provide("cpu")
    assert kernels.backend == "reference"
    assert kernels.install == "set DETRBENCH_CACHE to a writable folder"


def test_devices_without_kernels_take_the_reference() -> None:
    assert build._provide("mps").backend == "reference"


def test_the_key_changes_with_flags_and_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = build._cpu_compilation()
    keys = {recipe.key(), build.Compilation("cpu", {".cpp": ["g++", "-O1"]}, recipe.link, recipe.link_flags).key()}
    monkeypatch.setattr(toolchain, "instruction_set", lambda: "another machine")
    keys.add(recipe.key())
    monkeypatch.setattr(build.torch, "__version__", "0.1")
    keys.add(recipe.key())
    assert len(keys) == 4


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DETRBENCH_CACHE", str(tmp_path))
    assert files.cache_folder() == tmp_path
    monkeypatch.delenv("DETRBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert files.cache_folder() == tmp_path / "xdg" / "detrbench"


def toolkit(folder: Path) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "include").mkdir()
    (folder / "include" / "cuda_runtime.h").touch()
    nvcc = folder / "bin" / "nvcc"
    nvcc.write_text(f'#!/bin/sh\necho "Cuda compilation tools, release 13.0, V13.0.88"\necho "#$ TOP={folder}" >&2\n')
    nvcc.chmod(0o755)
    return folder


def test_cuda_is_found_where_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_HOME", str(toolkit(tmp_path / "cuda")))
    assert toolchain.cuda_home() == tmp_path / "cuda"
    assert toolchain.nvcc_release(tmp_path / "cuda") == "13.0"


THROWS = """
#include <sstream>
#include <stdexcept>
extern "C" int thrown() { try { std::ostringstream s; s << 6; throw std::runtime_error(s.str()); }
                          catch (const std::exception& e) { return e.what()[0] - '0'; } }
"""


def test_a_cxx_library_that_a_compiler_brings_along_stays_in_the_op(tmp_path: Path) -> None:
    """Two of them in one process, seen by each other: the op's messages broke off at a number, or ended the process."""
    compiler, made = toolchain.cxx(), tmp_path / "made.so"
    assert compiler is not None
    source = tmp_path / "throws.cpp"
    source.write_text(THROWS)
    command = [*build._linker([*compiler, "-static-libstdc++", "-fPIC"]), str(source), "-o", str(made)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this compiler has no C++ library to bring along")
    assert ctypes.CDLL(str(made)).thrown() == 6
    symbols = subprocess.run(["nm", "-D", "--defined-only", made], text=True, capture_output=True, check=True).stdout
    assert "thrown" in symbols
    assert "__cxa_throw" not in symbols


def test_cuda_is_found_behind_a_wrapper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = toolkit(tmp_path / "elsewhere")
    wrapper = tmp_path / "bin" / "nvcc"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {home}/bin/nvcc "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(toolchain, "_homes_of_wheels", list)
    assert toolchain.cuda_home() == home


def cuda_recipe(monkeypatch: pytest.MonkeyPatch, home: Path, cxx: str) -> build.Compilation:
    """How the CUDA library is made with this toolkit and compiler, whatever torch is installed."""
    monkeypatch.setenv("CUDA_HOME", str(home))
    monkeypatch.setenv("CXX", cxx)
    monkeypatch.setattr(build.torch.version, "cuda", "13.0")
    return build._cuda_compilation(["9.0"])


def test_a_toolkit_of_wheels_is_linked_by_the_name_of_its_runtime(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """NVIDIA's wheels have no libcudart.so, which the linker would look for by itself."""
    home = toolkit(tmp_path / "cu13")
    (home / "lib").mkdir()
    (home / "lib" / "libcudart.so.13").touch()
    assert cuda_recipe(monkeypatch, home, "g++").link_flags[-2:] == [f"-L{home / 'lib'}", "-l:libcudart.so.13"]
    (home / "lib" / "libcudart.so").touch()
    assert cuda_recipe(monkeypatch, home, "g++").link_flags[-2:] == [f"-L{home / 'lib'}", "-lcudart"]


def test_nvcc_is_told_the_compiler_and_its_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nvcc = cuda_recipe(monkeypatch, toolkit(tmp_path / "cuda"), "env g++ -pipe -O1").compilers[".cu"]
    assert nvcc[nvcc.index("-ccbin") + 1] == "g++"
    for option in ("-pipe", "-O1"):
        assert nvcc[nvcc.index(option) - 1] == "-Xcompiler"


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (
            "/usr/bin/ld: cannot find -lcudart: No such file\ncollect2: error: ld returned 1 exit status",
            "cannot find -l",
        ),
        ("a.cpp:3: warning: no error handling\na.cpp:7:2: error: 'x' was not declared", "'x' was not declared"),
        ("g++ -Werror a.cpp\nnvcc fatal   : Unsupported gpu architecture 'compute_50'", "Unsupported gpu"),
        ("a.o: in function `f':\na.cpp: undefined reference to `g'\ncollect2: error: ld returned 1", "undefined ref"),
        ('a.cu(7): error: identifier "x" is undefined\n1 error detected in the compilation', 'identifier "x"'),
        ("something\nKilled", "Killed"),
    ],
)
def test_the_line_that_says_why_is_quoted(output: str, line: str) -> None:
    with pytest.raises(build.CannotBuildError, match=re.escape(line)):
        build._require_success(1, output)


@pytest.mark.full
@pytest.mark.skipif(toolchain.cuda_home() is None, reason="nvcc was not found")
def test_the_cuda_sources_compile_without_a_gpu(tmp_path: Path) -> None:
    if build.torch.version.cuda is None:
        pytest.skip("this torch is built without CUDA")
    assert build.compile_cuda(["8.0", "9.0"], tmp_path).stat().st_size > 0
