"""The CUDA kernels, run on the CPU by the emulation: the tests of the operations, and whether these notice mistakes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import emulated
import pytest
from mistakes.catalogue import ROOT, Mistake, load
from op_cases import CASES

from detrbench.models.ops import build, toolchain

pytestmark = pytest.mark.skipif(toolchain.cxx() is None, reason="there is no C++ compiler")
OPERATIONS = ("test_msda.py", "test_key_aware.py", "test_from_offsets.py", "test_op_registration.py")
QUICK = "references and (detectors or 65 or 17) and not float16 or outside and float32"
NOTICING = "references or outside or anywhere or same_bits or large or infinite"
MISTAKES = [mistake for mistake in load() if mistake.file.endswith((".cu", ".cuh", "_cuda.cpp"))]


def run(library: Path, *arguments: str, tests: tuple[str, ...] = OPERATIONS, **environment: str) -> str:
    """What pytest prints of tests on emulated kernels; its last line says whether they passed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "emulated"]
    command += ["--emulate", str(library), *arguments, *(f"tests/models/ops/{name}" for name in tests)]
    path = os.pathsep.join([str(emulated.HERE), str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path, **environment}, text=True, capture_output=True
    )
    return f"{done.stdout}\n{done.stderr}\nexit status {done.returncode}"


def run_sanitized(architecture: int, *arguments: str, tests: tuple[str, ...]) -> str:
    """`run` with both sanitizers, which end the program at what they find."""
    compiler = toolchain.cxx()
    assert compiler is not None
    runtimes = [
        subprocess.run([*compiler, f"-print-file-name={name}"], text=True, capture_output=True, check=True).stdout
        for name in ("libasan.so", "libstdc++.so")
    ]
    return run(
        emulated.library(architecture, sanitized=True),
        *arguments,
        tests=tests,
        LD_PRELOAD=" ".join(map(str.strip, runtimes)),  # before Python itself
        ASAN_OPTIONS="detect_leaks=0",  # Python keeps what it has till its end
    )


def assert_passed(said: str, tests: int) -> None:
    """Raise unless at least that many tests passed, none failed, and kernels were started for them."""
    found = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|emulated launches)", said)}
    assert said.endswith("exit status 0"), said[-3000:]
    assert found["passed"] >= tests
    assert found["emulated launches"] > tests / 2


def test_some_cases_on_emulated_kernels() -> None:
    assert_passed(run(emulated.library(90), "-k", QUICK, tests=OPERATIONS[:2]), 40)


@pytest.mark.full
@pytest.mark.parametrize("architecture", emulated.ARCHITECTURES)
def test_all_that_is_asked_of_the_operations(architecture: int) -> None:
    assert_passed(run(emulated.library(architecture), f"--lanes-seed={architecture}"), 450)


@pytest.mark.full
@pytest.mark.parametrize("seed", [1, 2])
def test_levels_on_the_device_and_another_order_of_lanes(seed: int) -> None:
    library = emulated.library(emulated.ARCHITECTURES[seed - 1])
    said = run(library, f"--lanes-seed={seed}", "--levels=device", "-k", "references or outside", tests=OPERATIONS[:2])
    assert_passed(said, 350)


@pytest.mark.full
def test_many_levels_of_the_host_travel_with_launches() -> None:
    said = run(emulated.library(90), "-k", "output_is and 17 and levels and float32", tests=OPERATIONS[:1])
    assert re.search(r"\b3 emulated launches", said), said[-3000:]  # sixteen levels, one more, the attention


@pytest.mark.full
def test_wrong_levels_on_the_device_end_the_program() -> None:
    said = run(
        emulated.library(90), "--levels=device", "--capture=no", "-k", "errors_say and shapes", tests=OPERATIONS[:1]
    )
    assert re.search(r"check_levels.*Assertion .* not fit .* failed", said), said[-3000:]
    assert "passed" not in said


@pytest.mark.full
@pytest.mark.parametrize("architecture", emulated.ARCHITECTURES)
def test_some_cases_under_the_sanitizers(architecture: int) -> None:
    selected = "(references or same_bits and detectors) and not 200 and not many and not few"
    assert_passed(run_sanitized(architecture, "-k", selected, tests=OPERATIONS[:2]), 200)


@pytest.mark.full
def test_random_calls_under_the_sanitizers() -> None:
    names = ("random_calls_are_the_references", "damaged_calls_are_refused")
    tests = tuple(f"test_fuzz.py::test_{name}[from-250]" for name in names)
    said = run_sanitized(90, "-m", "full", tests=tests)
    assert re.search(r"\b2 passed", said), said[-3000:]
    assert said.endswith("exit status 0")


@pytest.mark.parametrize("merged", [False, True])
def test_cases_reach_both_ways_to_add_gradients(merged: bool) -> None:
    text = (build.SOURCES / "summing.cuh").read_text()
    dense = re.search(r"constexpr int64_t kDense = (\d+);", text)
    assert dense is not None
    tokens = {case: sum(height * width for height, width in case.levels) for case in CASES}
    reached = [case for case in CASES if (case.queries * int(dense[1]) >= tokens[case]) == merged and case.queries > 0]
    assert any(len(case.levels) * case.points > 8 for case in reached)  # several tiles
    assert any(case.depth > 128 or (case.depth > 32 and case.depth % 4) for case in reached)  # passes of the channels
    assert any(tokens[case] > 1024 for case in reached)  # more than a block has slots


@pytest.mark.full
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.id)
def test_mistakes_in_the_kernels_are_noticed(mistake: Mistake, tmp_path: Path) -> None:
    sources = tmp_path / "csrc"
    shutil.copytree(build.SOURCES, sources)
    file = sources / Path(mistake.file).name
    file.write_text(mistake.made_in(file.read_text()))
    if mistake.equivalent is None:
        assert "exit status 0" not in run(emulated.library(90, sources=sources), "-x", "-k", NOTICING)


def test_there_are_mistakes_in_every_source_of_the_kernels() -> None:
    assert {Path(mistake.file).name for mistake in MISTAKES} == {
        *(path.name for path in build.SOURCES.glob("*.cu*")),
        emulated.REGISTRATION,
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("some.cu", "int none;"),
        ("some.cu", "kernel<<<1, 32>>>(x);"),
        ("some.cu", "kernel<T><<<1, 32>>>(x); extern __shared__ float all[];"),
        (emulated.REGISTRATION, "TORCH_LIBRARY_IMPL(detrbench, CUDA, library)"),
    ],
)
def test_sources_that_cannot_be_translated_are_refused(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=name):
        emulated.translated(name, text, 90)
