"""Instructions of the CUDA kernels for each sampled point, counted in the compiled code. Needs the toolkit, no GPU.

    python benchmarks/instructions.py
    python benchmarks/instructions.py --capability 8.0 --sources OTHER/csrc

Counted is each loop that reads corners and writes or sums them, divided by the points that one turn of it handles: the
instructions that one warp issues where 32 lanes share a point or a few. Loops within it, which sum over lanes, count
once, so this is what stands in the code, not what is issued. Only kernels that move 16 bytes at a time are shown, as
they run for 32 channels a head.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from detrbench.models.ops import build, toolchain

TYPES = {"f": "float32", "6__half": "float16", "13__nv_bfloat16": "bfloat16"}
KERNEL = re.compile(r"(forward|backward)_kernelI(f|6__half|13__nv_bfloat16)(f|S\w*?_)Li([48])E(?!Lb0)")
INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,5})\*/\s+(.*?);")
BRANCH = re.compile(r"\bBRA\b[^;]*?\b0x([0-9a-f]+)")
GATHER = re.compile(r"\bLDG\.E\.128\b")
CORNERS = 4


@dataclass(frozen=True)
class Count:
    """One kernel: `points` has one figure for each of its loops over points."""

    file: str
    direction: str
    type: str
    points: tuple[float, ...]
    registers: int
    shared: int  # bytes of a block


def gather_loops(code: str) -> Iterator[float]:
    """Instructions for each point of every innermost loop that reads whole points."""
    lines = [(int(address, 16), text) for address, text in INSTRUCTION.findall(code)]
    loops = []
    for address, text in lines:
        branch = BRANCH.search(text)
        if branch and int(branch[1], 16) < address:
            body = [line for at, line in lines if int(branch[1], 16) <= at <= address]
            gathers = sum(bool(GATHER.search(line)) for line in body)
            if gathers and gathers % CORNERS == 0:
                loops.append((int(branch[1], 16), address, len(body) / (gathers / CORNERS)))
    for start, end, count in loops:
        if not any((a, b) != (start, end) and start <= a and b <= end for a, b, _ in loops):
            yield count


def counts(sources: Path, home: Path, capability: str) -> Iterator[Count]:
    """The kernels of both CUDA sources for one compute capability, such as "9.0"."""
    disassembler = _disassembler(home)
    for name in ("msda_cuda.cu", "key_aware_cuda.cu"):
        with tempfile.TemporaryDirectory() as folder:
            cubin = Path(folder) / "kernels.cubin"
            architecture = f"-arch=sm_{capability.replace('.', '')}"
            nvcc = [str(home / "bin" / "nvcc"), "-cubin", architecture, "-O3", "-std=c++17", str(sources / name)]
            _said([*nvcc, "-o", str(cubin)])
            code = _said([disassembler, "-sass", str(cubin)])
            usage = _said([disassembler, "-res-usage", str(cubin)])
        for function in re.split(r"\n\s*Function : ", code)[1:]:
            symbol = function.partition("\n")[0].strip()
            kernel = KERNEL.search(symbol)
            if kernel is None or (kernel[2] == "f") != (kernel[4] == "4") or kernel[3] != "f":
                continue
            used = re.search(re.escape(symbol) + r":\s*\n?.*?REG:(\d+).*?SHARED:(\d+)", usage)
            assert used is not None, symbol
            yield Count(name, kernel[1], TYPES[kernel[2]], tuple(gather_loops(function)), int(used[1]), int(used[2]))


def _disassembler(home: Path) -> str:
    found = [home / "bin" / "cuobjdump", *Path(sys.prefix).glob("lib/python3*/site-packages/triton/**/bin/cuobjdump")]
    chosen = next((str(path) for path in found if path.exists()), None) or shutil.which("cuobjdump")
    if chosen is None:
        sys.exit("cuobjdump was not found: install the CUDA toolkit with its tools, or Triton, which carries it")
    return chosen


def _said(command: list[str]) -> str:
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{Path(command[0]).name} failed: {done.stderr.strip()}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", default="9.0", help="compute capability")
    parser.add_argument("--sources", type=Path, default=build.SOURCES, help="another csrc/")
    options = parser.parse_args()
    home = toolchain.cuda_home()
    if home is None:
        sys.exit(f"no CUDA toolkit (nvcc) was found: {build.INSTALL_NVCC}")
    print(f"compute capability {options.capability}, nvcc {toolchain.nvcc_release(home)}")
    form = "{:<18} {:<9} {:<9} {:>16} {:>10} {:>8}"
    print(form.format("source", "direction", "values", "instructions", "registers", "shared"))
    for c in sorted(counts(options.sources, home, options.capability), key=lambda c: (c.file, c.direction, c.type)):
        figures = " + ".join(f"{points:.0f}" for points in c.points)
        print(form.format(c.file, c.direction, c.type, figures, c.registers, c.shared))


if __name__ == "__main__":
    main()
