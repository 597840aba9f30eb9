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
LIST = [
    "LDS R4, [R2]",
    "LDS.64 R6, [R4]",  # 0x10: a node
    "LDS.128 R8, [R5]",
    "FFMA R12, R6, R8, R12",
    "@P0 BRA 0x10",
    "LDS.128 R8, [R5]",  # 0x50: reads global memory as well
    "LDG.E R8, desc[UR36][R14.64]",
    "@P0 BRA 0x50",
    "EXIT",
]
HALF_KERNEL = "_ZN9detrbench12_GLOBAL__N_115backward_kernelI6__halffLi4ENS_6MergedEEEvNS_5SizesE"
SYMBOLS = {
    HALF_KERNEL: ("backward", "float16"),
    "14forward_kernelIffLi4EEEvNS_5SizesE": ("forward", "float32"),
    "14forward_kernelI13__nv_bfloat16fLi4EEEvNS_5SizesE": ("forward", "bfloat16"),
    "14forward_kernelIfNS_5GivenIffEELi4EEEvNS_5SizesE": ("forward", "float32"),
    "14forward_kernelI6__halfNS_11FromOffsetsIffEELi4EEEvNS_5SizesE": ("forward from offsets", "float16"),
    HALF_KERNEL.replace("6Merged", "4Each"): None,
    HALF_KERNEL.replace("Li4", "Li1"): None,  # a channel at a time
    HALF_KERNEL.replace("6__halff", "6__halfS2_"): None,  # locations as narrow as the values
    HALF_KERNEL.replace("6__halff", "dd"): None,
}


def code_of(lines: list[str]) -> str:
    return "\n".join(f"        /*{16 * number:04x}*/                   {line} ;" for number, line in enumerate(lines))


CODE = code_of(LINES)


def test_the_innermost_loop_is_counted_for_each_of_its_points() -> None:
    assert list(instructions.gather_loops(CODE)) == [10 / 2]
    assert list(instructions.gather_loops(CODE.replace("LDG.E.128", "LDS.128"))) == []


def test_half_values_are_gathered_by_half_as_many_bits() -> None:
    assert list(instructions.gather_loops(CODE, 64)) == []
    assert list(instructions.gather_loops(CODE.replace("LDG.E.128", "LDG.E.64"), 64)) == [10 / 2]


def test_a_loop_over_a_list_only_reads_shared_memory() -> None:
    assert list(instructions.list_loops(code_of(LIST))) == [4]
    assert list(instructions.list_loops(CODE)) == []
    twice = [*LIST[:4], "@!P0 BRA 0x80", *LIST[1:4], *LIST[4:5], "EXIT"]
    assert list(instructions.list_loops(code_of(twice))) == [8 / 2]


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_kernels_are_known_by_their_names(symbol: str) -> None:
    assert instructions.named(symbol) == SYMBOLS[symbol]


def test_figures_are_written_as_in_the_documentation() -> None:
    count = instructions.Count("key-aware backward", "float32", (87.5, 148.25), (18.0,), 80, 48784)
    assert count.figures() == "88 + 148, 18 a corner"
    assert instructions.Count("msda forward", "float32", (35.25,), (), 48, 18048).figures() == "35"


@pytest.mark.full
@pytest.mark.skipif(toolchain.cuda_home() is None, reason="nvcc was not found")
def test_the_figures_of_the_documentation() -> None:
    """The table of docs/performance.md that begins with kernel and values has a column sm_90, of all kernels."""
    home = toolchain.cuda_home()
    assert home is not None
    if toolchain.nvcc_release(home) != "13.0":
        pytest.skip("docs/performance.md has figures of CUDA 13.0")
    text = (build.SOURCES.resolve().parent / "docs" / "performance.md").read_text()
    table = text[text.index("| kernel | values |") :].partition("\n\n")[0]
    header, _, *rows = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in table.splitlines()]
    written, kernel = {}, ""
    for row in rows:
        kernel = row[0] or kernel  # named in its first row only
        written[kernel, row[1]] = row[header.index("sm_90")]
    found = {(count.kernel, count.type): count.figures() for count in instructions.counts(build.SOURCES, home, "9.0")}
    assert len(found) == 15
    assert written == found
