"""Deformable attention, plain and key-aware: our kernels against the common grid_sample formulation, in one process.

    python benchmarks/op.py --threads 1,2
    python benchmarks/op.py --device cuda --json
    python benchmarks/op.py --operations msda --rounds 3 --at-least 10      # for CI: exit 1 where it is less

Both sides run in turn, round after round, so that a noisy machine disturbs both alike. Printed are the fastest and
the median round, and the ratio of the two sides within a round: its median, and that of the fastest rounds. The
reference runs in float32 on the CPU, where its bfloat16 is slower, and in the same type on a GPU; our bfloat16 takes
locations and weights in float32, as under autocast. The key-aware reference samples once for keys and values.
"from-offsets" begins with offsets and logits: the reference makes locations and weights of them first.
On a GPU kernels are timed, not their launches (`gpu.py`), and the first CUDA kernel of deformable attention stands
beside them in float32 (`original.py`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import original
import torch
from gpu import kernel_milliseconds, words
from torch import Tensor

from detrbench.models import ops
from detrbench.models.ops.reference import grid_sample_msda, key_aware, sampling_locations, sampling_weights

LEVELS = ((100, 152), (50, 76), (25, 38), (13, 19))  # an image of 800 x 1216 at strides 8 to 64
HEADS, DEPTH, POINTS = 8, 32, 4
QUERIES = {"encoder": None, "decoder 300": 300, "decoder 900": 900}  # None: every token
SIZES = [list(size) for size in LEVELS]
# Name -> ours and the reference, on (value, shapes, starts, locations, weights or query), or (value, shapes, starts,
# offsets, logits, reference points).
OPERATIONS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "msda": (ops.msda, lambda v, _shapes, _starts, x, w: grid_sample_msda(v, SIZES, x, w)),
    "key-aware": (
        lambda *arguments: ops.key_aware_attention(*arguments)[0],
        lambda v, _shapes, _starts, x, q: key_aware(v, SIZES, x, q)[0],
    ),
    "from-offsets": (
        ops.msda_from_offsets,
        lambda v, shapes, _starts, offsets, logits, places: grid_sample_msda(
            v, SIZES, sampling_locations(shapes, offsets, places).to(v.dtype), sampling_weights(logits).to(v.dtype)
        ),
    ),
}
REPEATS = 10  # of what is timed on a GPU, one behind the other: together they are long against an event
TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Timing:
    """Milliseconds of both sides, and of the first CUDA kernel where it ran.

    `copy_share` is the share of copying speed at which our side moves its bytes.
    """

    operation: str
    case: str
    direction: str
    type: str
    device: str
    threads: int
    rounds: int
    ours_min: float
    ours_median: float
    reference_min: float
    reference_median: float
    ratio_median: float
    ratio_min: float
    gigabytes_per_second: float | None = None
    copy_share: float | None = None
    original_min: float | None = None
    original_median: float | None = None


def reference_points() -> Tensor:
    """The centre of every token's pixel, (S, 2), as fractions of its level."""
    grids = []
    for height, width in LEVELS:
        rows, columns = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
        grids.append(torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], -1).view(-1, 2))
    return torch.cat(grids)


def inputs(operation: str, case: str, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Random arguments of an operation; offsets spread by one pixel around the reference points."""
    torch.manual_seed(0)
    shapes = torch.tensor(LEVELS)
    areas = shapes.prod(1)
    count = QUERIES[case]
    centres = reference_points() if count is None else torch.rand(count, 2)
    layout = (1, len(centres), HEADS, len(LEVELS), POINTS)
    offsets, logits = torch.randn(*layout, 2), torch.randn(*layout)
    locations = centres[None, :, None, None, None] + offsets / shapes.flip(-1)[:, None]
    value = torch.randn(1, int(areas.sum()), HEADS, DEPTH)
    points = {
        "msda": [locations, sampling_weights(logits)],
        "key-aware": [locations, torch.randn(1, len(centres), HEADS, DEPTH).to(dtype)],
        "from-offsets": [offsets, logits, centres[None, :, None].repeat(1, 1, len(LEVELS), 1)],
    }
    tensors = [value.to(dtype), shapes, areas.cumsum(0) - areas, *points[operation]]
    return [tensor.to(device).requires_grad_(tensor.is_floating_point()) for tensor in tensors]


def moved_bytes(operation: str, arguments: list[Tensor], direction: str) -> int:
    """Bytes that must be read or written once."""
    value, _, _, locations, *others = arguments
    output = locations.shape[1] * HEADS * DEPTH * value.element_size()
    if operation == "key-aware":
        output += 4 * locations[..., 0].numel()  # the weights, in float32
    read = sum(tensor.numel() * tensor.element_size() for tensor in (value, locations, *others))
    return read + output if direction == "forward" else 3 * read + 2 * output


def step(function: Callable[..., Tensor], arguments: list[Tensor], direction: str) -> Callable[[], None]:
    """One forward, or one forward and backward."""
    leaves = [tensor for tensor in arguments if tensor.requires_grad]
    grad_output = torch.ones_like(function(*arguments))

    def forward() -> None:
        with torch.no_grad():
            function(*arguments)

    def both() -> None:
        torch.autograd.grad(function(*arguments), leaves, grad_output)

    return forward if direction == "forward" else both


def milliseconds(work: Callable[[], object], device: str) -> float:
    if device == "cuda":
        return kernel_milliseconds(work, REPEATS)
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def copy_speed() -> float:
    """Bytes per second that a plain copy on the GPU reads and writes."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    fastest = min(milliseconds(lambda: target.copy_(source), "cuda") for _ in range(3))
    return 2 * source.numel() / fastest * 1e3


def measure(
    operation: str,
    case: str,
    direction: str,
    type_name: str,
    device: str,
    rounds: int,
    copying: float | None,
    first_kernel: Callable[..., Tensor] | None = None,
) -> Timing:
    """Time the sides in turn; `first_kernel` is the third where it can be, on the arguments of the reference."""
    ours = inputs(operation, case, TYPES[type_name], device)
    common = inputs(operation, case, torch.float32, "cpu") if device == "cpu" else [t.detach().clone() for t in ours]
    if device == "cuda":
        common = [t.to(TYPES[type_name]).requires_grad_() if t.is_floating_point() else t for t in common]
    native, reference = OPERATIONS[operation]
    sides = [step(native, ours, direction), step(reference, common, direction)]
    if first_kernel is not None and (operation, type_name) == ("msda", "float32"):
        sides.append(step(first_kernel, common, direction))
    for side in sides:  # warm up: caches, page tables, the compiled library
        milliseconds(side, device)
    times = [[milliseconds(side, device) for side in sides] for _ in range(rounds)]
    mine, theirs, *firsts = zip(*times, strict=True)
    speed = moved_bytes(operation, ours, direction) / statistics.median(mine) * 1e3 if copying else None
    return Timing(
        operation=operation,
        case=case,
        direction=direction,
        type=type_name,
        device=device,
        threads=torch.get_num_threads(),
        rounds=rounds,
        ours_min=min(mine),
        ours_median=statistics.median(mine),
        reference_min=min(theirs),
        reference_median=statistics.median(theirs),
        ratio_median=statistics.median(theirs[i] / mine[i] for i in range(rounds)),
        ratio_min=min(theirs) / min(mine),
        gigabytes_per_second=speed and speed / 1e9,
        copy_share=speed and copying and speed / copying,
        original_min=min(firsts[0]) if firsts else None,
        original_median=statistics.median(firsts[0]) if firsts else None,
    )


def timings(device: str, operations: list[str], threads: list[int], rounds: int) -> Iterator[Timing]:
    copying = copy_speed() if device == "cuda" else None
    first_kernel = original.on_this_gpu() if device == "cuda" and "msda" in operations else None
    types = ("float32", "bfloat16") if device == "cpu" else tuple(TYPES)
    directions = ("forward", "forward + backward")
    for number in threads:
        torch.set_num_threads(number)
        for operation, case, direction, type_name in itertools.product(operations, QUERIES, directions, types):
            count = rounds * (2 if device == "cuda" else 1 if case == "encoder" else 6)
            yield measure(operation, case, direction, type_name, device, count, copying, first_kernel)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", default=str(torch.get_num_threads()), help="thread counts, as 1,2")
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        help="of the encoder on the CPU; six times as many of the decoders, twice on a GPU",
    )
    parser.add_argument("--operations", default=",".join(OPERATIONS), help="which of them, by comma")
    parser.add_argument("--json", action="store_true", help="one document on stdout")
    parser.add_argument("--at-least", type=float, help="exit 1 where the encoder's float32 ratio is below this")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device")
    if options.device == "cuda":
        print(words(), file=sys.stderr if options.json else sys.stdout, flush=True)
    operations = options.operations.split(",")
    if unknown := sorted(set(operations) - set(OPERATIONS)):
        sys.exit(f"--operations: expected some of {', '.join(OPERATIONS)}, got {', '.join(unknown)}")
    threads = [int(number) for number in options.threads.split(",")] if options.device == "cpu" else [1]
    form = "{:<12} {:<12} {:<19} {:<9} {:>7} {:>10} {:>10} {:>11} {:>11} {:>7} {:>7} {:>7} {:>9} {:>9}"
    heading = (
        "operation",
        "case",
        "direction",
        "type",
        "threads",
        "ours min",
        "median",
        "ref. min",
        "median",
        "ratio",
        "of min",
        "copy",
        "orig. min",
        "median",
    )
    if not options.json:
        print(f"milliseconds; N 1, {HEADS} heads of {DEPTH}, {len(LEVELS)} levels of 800 x 1216, {POINTS} points")
        print(form.format(*heading))
    found = []
    for t in timings(options.device, operations, threads, options.rounds):
        found.append(asdict(t))
        if not options.json:
            numbers = (f"{x:.2f}" for x in (t.ours_min, t.ours_median, t.reference_min, t.reference_median))
            share = "" if t.copy_share is None else f"{t.copy_share:.0%}"
            firsts = ("" if x is None else f"{x:.2f}" for x in (t.original_min, t.original_median))
            ratios = (f"{t.ratio_median:.1f}x", f"{t.ratio_min:.1f}x")
            print(
                form.format(t.operation, t.case, t.direction, t.type, t.threads, *numbers, *ratios, share, *firsts),
                flush=True,
            )
    if options.json:
        print(json.dumps({"torch": torch.__version__, "kernels": ops.status()[options.device], "timings": found}))
    judged = [t["ratio_median"] for t in found if (t["case"], t["type"]) == ("encoder", "float32")]
    if options.at_least is not None and min(judged) < options.at_least:
        sys.exit(f"expected at the encoder's size at least {options.at_least:g}x, got {min(judged):.1f}x")


if __name__ == "__main__":
    main()
