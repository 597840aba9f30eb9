"""Instructions of a loop over points, counted in made-up code, and in what the toolkit here compiles."""

from __future__ import annotations

import pytest
from benchmark_scripts import script

from detrbench.models.ops import build, toolchain

instructions = script("instructions")
LINES = [
    "MOV R1, c[0x0][0x28]",
    "ISETP.NE.AND P2, PT, R4, RZ, PT",  # 0x10: outer loop
    *["@P1 LDG.E.128.CONSTANT R8, desc[UR36][R14.64]"] * 8,  # 0x20: inner loop, two points
    "FFMA R8, R16.reuse, R28, R8",
    "@P2 BRA 0x20",  # 0xb0
    "LDG.E.64 R2, [R4.64]",
    "@!P3 BRA 0x10",
    "BRA 0xf0",
    "EXIT",
]
CODE = "\n".join(f"        /*{16 * number:04x}*/                   {line} ;" for number, line in enumerate(LINES))


def test_the_innermost_loop_is_counted_for_each_of_its_points() -> None:
    assert list(instructions.gather_loops(CODE)) == [10 / 2]
    assert list(instructions.gather_loops(CODE.replace("LDG.E.128", "LDS.128"))) == []


@pytest.mark.full
@pytest.mark.skipif(toolchain.cuda_home() is None, reason="nvcc was not found")
def test_the_figures_of_the_documentation() -> None:
    home = toolchain.cuda_home()
    assert home is not None
    if toolchain.nvcc_release(home) != "13.0":
        pytest.skip("docs/performance.md has figures of CUDA 13.0")
    text = (build.SOURCES.resolve().parent / "docs" / "performance.md").read_text()
    found = {
        (count.file, count.direction, count.type): round(count.points[0])
        for count in instructions.counts(build.SOURCES, home, "9.0")
    }
    for direction in ("forward", "backward"):
        assert f"| msda {direction} | float32 |" in text
        line = next(line for line in text.splitlines() if line.startswith(f"| msda {direction} |"))
        assert line.split("|")[4].strip(" *") == str(found["msda_cuda.cu", direction, "float32"])
