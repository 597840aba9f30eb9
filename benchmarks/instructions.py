"""Instructions of the CUDA kernels for each sampled point, counted in the compiled code. Needs the toolkit, no GPU.

    python benchmarks/instructions.py
    python benchmarks/instructions.py --capability 8.0 --sources OTHER/csrc

Counted is each loop that reads corners and writes or sums what they hold, divided by the points that one turn of it
handles: the instructions that one warp issues where 32 lanes share four points (32 channels a head, four to a lane).
Loops within it, which sum over lanes, count once, so this is what stands in the code, not what is issued. A backward
that merges corners also has a loop over the corners of a token, of which one turn is one corner. Only kernels that move
four channels at a time are shown, with locations in float32, and backwards for as many queries as tokens.
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
FILES = {"msda_cuda.cu": "msda", "key_aware_cuda.cu": "key-aware"}
KERNEL = re.compile(
    r"(forward|backward)_kernelI(f|6__half|13__nv_bfloat16)"
    r"(?:f|NS_5GivenIffEE|NS_11(FromOffsets)IffEE)Li4E(?:NS_6MergedE)?EEv"
)
INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,5})\*/\s+(.*?);")
BRANCH = re.compile(r"\bBRA\b[^;]*?\b0x([0-9a-f]+)")
GATHERS = {128: re.compile(r"\bLDG\.E\.128\.CONSTANT\b"), 64: re.compile(r"\bLDG\.E\.64\.CONSTANT\b")}  # by bits
ROW = re.compile(r"\bLDS\.128\b")
WRITES_OR_WAITS = re.compile(r"\b(LDG|STG|STS|RED|ATOM|ATOMG|ATOMS|SHFL|BAR)\b")
CORNERS = 4


@dataclass(frozen=True)
class Count:
    """One kernel: `points` has one figure for each of its loops over points, `corners` for each over merged corners."""

    kernel: str  # such as "msda backward"
    type: str
    points: tuple[float, ...]
    corners: tuple[float, ...]
    registers: int
    shared: int  # bytes of a block

    def figures(self) -> str:
        """As the documentation has them."""
        points = " + ".join(f"{figure:.0f}" for figure in self.points)
        return ", ".join([points, *(f"{figure:.0f} a corner" for figure in self.corners)])


@dataclass(frozen=True)
class Loop:
    start: int
    end: int
    body: tuple[str, ...]

    def count(self, pattern: re.Pattern[str]) -> int:
        return sum(bool(pattern.search(line)) for line in self.body)

    def holds(self, other: Loop) -> bool:
        return other is not self and self.start <= other.start and other.end <= self.end


def loops(code: str) -> list[Loop]:
    """What lies between each branch back and where it leads."""
    lines = [(int(address, 16), text) for address, text in INSTRUCTION.findall(code)]
    found = []
    for address, text in lines:
        branch = BRANCH.search(text)
        if branch and (start := int(branch[1], 16)) < address:
            found.append(Loop(start, address, tuple(line for at, line in lines if start <= at <= address)))
    return found


def innermost(some: list[Loop]) -> list[Loop]:
    return [loop for loop in some if not any(loop.holds(other) for other in some)]


def gather_loops(code: str, bits: int = 128) -> Iterator[float]:
    """Instructions for each point of every innermost loop that reads whole points, corners of so many bits."""
    gathers = {loop: loop.count(GATHERS[bits]) for loop in loops(code)}
    for loop in innermost([loop for loop, count in gathers.items() if count and count % CORNERS == 0]):
        yield len(loop.body) / (gathers[loop] / CORNERS)


def list_loops(code: str) -> Iterator[float]:
    """Instructions for each corner of the loops that only read shared memory. A list may end behind every corner, so
    there is a branch for each.
    """
    for loop in innermost(loops(code)):
        if loop.count(ROW) and not loop.count(WRITES_OR_WAITS):
            yield len(loop.body) / loop.count(BRANCH)


def named(symbol: str) -> tuple[str, str] | None:
    """Direction and type of the values of a kernel that is shown."""
    kernel = KERNEL.search(symbol)
    return kernel and (f"{kernel[1]}{' from offsets' if kernel[3] else ''}", TYPES[kernel[2]])


def counts(sources: Path, home: Path, capability: str) -> Iterator[Count]:
    """The kernels of both CUDA sources for one compute capability, such as "9.0"."""
    disassembler = _disassembler(home)
    for file, operation in FILES.items():
        with tempfile.TemporaryDirectory() as folder:
            cubin = Path(folder) / "kernels.cubin"
            architecture = f"-arch=sm_{capability.replace('.', '')}"
            nvcc = [str(home / "bin" / "nvcc"), "-cubin", architecture, "-O3", "-std=c++17", str(sources / file)]
            _said([*nvcc, "-o", str(cubin)])
            code = _said([disassembler, "-sass", str(cubin)])
            usage = _said([disassembler, "-res-usage", str(cubin)])
        for function in re.split(r"\n\s*Function : ", code)[1:]:
            symbol = function.partition("\n")[0].strip()
            name = named(symbol)
            if name is None:
                continue
            direction, values = name
            used = re.search(re.escape(symbol) + r":\s*\n?.*?REG:(\d+).*?SHARED:(\d+)", usage)
            assert used is not None, symbol
            points = tuple(gather_loops(function, 128 if values == "float32" else 64))
            corners = tuple(list_loops(function)) if direction == "backward" else ()
            yield Count(f"{operation} {direction}", values, points, corners, int(used[1]), int(used[2]))


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
    form = "{:<26} {:<9} {:>22} {:>10} {:>8}"
    print(form.format("kernel", "values", "instructions a point", "registers", "shared"))
    found = list(counts(options.sources, home, options.capability))
    if not found:
        sys.exit("no kernel has a name that this script knows")
    for c in sorted(found, key=lambda c: (c.kernel, list(TYPES.values()).index(c.type))):
        print(form.format(c.kernel, c.type, c.figures(), c.registers, c.shared))


if __name__ == "__main__":
    main()
