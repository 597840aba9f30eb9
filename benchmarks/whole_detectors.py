"""Whole detectors: ours as it is trained, ours in the form for inference, and Hugging Face's, with the same weights.

    python benchmarks/whole_detectors.py
    python benchmarks/whole_detectors.py --size 480x640 --rounds 5 --json
    python benchmarks/whole_detectors.py --sides eager,optimised,bfloat16

Deformable DETR with ResNet-50 at batch 1 on the CPU; its sides run in turn, round after round. Then the encoders of
Deformable and Sparse DETR (keep ratio 0.1), whose times should stand to each other as their multiply-adds do. Times
are processor time of the process, which other processes disturb less than the clock: the fastest and the median round,
and the median ratio within a round to the first side, which is transformers unless it is left out.
`bound` is what the multiply-adds of the detector take at the speed of the fastest large product that was found here.
Needs `transformers` and `timm` (`pip install 'detrbench[dev]'`) for that side.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrbench import environment, models
from detrbench.measure import counting, protocols

NAME = "deformable_detr_r50"
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "deformable": ("deformable_detr_r50", {}),
    "sparse 0.1": ("sparse_detr_r50", {"keep_ratio": 0.1}),
}
PRODUCT = (22_000, 256, 1024)  # tokens of 800 x 1066, through the first layer of a feed-forward network

Run = Callable[[Tensor], Any]


def detector() -> nn.Module:
    """Ours with the conventions of transformers, and random weights."""
    torch.manual_seed(0)
    return models.create(NAME, source="transformers").eval()


def theirs(folder: Path, ours: nn.Module) -> nn.Module:
    """Theirs, whose weights are given to ours."""
    import transformers

    config = transformers.DeformableDetrConfig(num_labels=91, num_queries=300, disable_custom_kernels=True)
    made: nn.Module = transformers.DeformableDetrForObjectDetection(config).eval()
    torch.save(made.state_dict(), folder / "theirs.pth")
    models.load_checkpoint(ours, folder / "theirs.pth")  # type: ignore[arg-type]
    return made


def in_bfloat16(run: Run) -> Run:
    """The same under autocast."""

    def narrowed(images: Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return run(images)

    return narrowed


def sides(wanted: Sequence[str]) -> dict[str, Run]:
    """What is timed, by name, all with the same weights."""
    ours, found = detector(), dict[str, Run]()
    if "transformers" in wanted:
        with tempfile.TemporaryDirectory() as folder:
            found["transformers"] = theirs(Path(folder), ours)
    runs: dict[str, Callable[[], Run]] = {
        "eager": lambda: ours,
        "optimised": lambda: models.for_inference(ours),
        "bfloat16": lambda: in_bfloat16(ours),
    }
    return found | {name: runs[name]() for name in wanted if name in runs}


@torch.inference_mode()
def seconds_of(runs: Mapping[str, Run], images: Tensor, rounds: int) -> dict[str, list[float]]:
    """Processor seconds by side and round."""
    for run in runs.values():  # the first forward prepares what all others find
        run(images)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            began = time.process_time()
            run(images)
            taken[name].append(time.process_time() - began)
    return taken


@torch.inference_mode()
def gflops_a_second(rounds: int = 5) -> float:
    """2 x multiply-adds a second of the faster of two ways to compute a large product."""
    rows, width, hidden = PRODUCT
    x, layer = torch.randn(rows, width), nn.Linear(width, hidden)
    ways = {"PyTorch's": lambda x: F.linear(x, layer.weight, layer.bias), "ours": models.for_inference(layer)}
    fastest = min(min(each) for each in seconds_of(ways, x, rounds).values())
    return 2e-9 * rows * width * hidden / fastest


def summary(taken: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Fastest and median round of each side, and its median ratio to the first side within a round."""
    first = next(iter(taken.values()))
    return {
        name: {
            "min": min(each),
            "median": statistics.median(each),
            "ratio": statistics.median(base / value for base, value in zip(first, each)),
        }
        for name, each in taken.items()
    }


@torch.inference_mode()
def encoder_seconds(made: Mapping[str, nn.Module], images: Tensor, rounds: int) -> dict[str, float]:
    """Median processor seconds of each detector's encoder, the detectors in turn."""
    taken: dict[str, list[float]] = {name: [] for name in made}
    for number in range(rounds + 1):
        for name, each in made.items():
            began: list[float] = []
            encoder = each.get_submodule("encoder")
            hooks = [
                encoder.register_forward_pre_hook(lambda *_, began=began: began.append(time.process_time())),
                encoder.register_forward_hook(lambda *_, began=began: began.append(time.process_time())),
            ]
            each(images)
            for hook in hooks:
                hook.remove()
            if number:  # the first prepares what all others find
                taken[name].append(began[1] - began[0])
    return {name: statistics.median(each) for name, each in taken.items()}


def encoders(images: Tensor, rounds: int, optimised: bool) -> dict[str, float]:
    """Sparse encoder over dense one: their times, their multiply-adds, and the first by the second."""
    made, gflops = {}, {}
    for name, (model, options) in ENCODERS.items():
        torch.manual_seed(0)
        trained = models.create(model, **options).eval()
        made[name] = models.for_inference(trained) if optimised else trained
        rule = protocols.get("complexity").at(*images.shape[-2:])
        gflops[name] = counting.count(model, options, rule).gflops_by_part["encoder"]
    seconds = encoder_seconds(made, images, rounds)
    times, work = (found["sparse 0.1"] / found["deformable"] for found in (seconds, gflops))
    return {"time": times, "multiply-adds": work, "quotient": times / work}


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    return {
        "cpu": environment.cpu_model(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load": [round(each, 1) for each in os.getloadavg()],
    }


def measure(wanted: Sequence[str], images: Tensor, rounds: int) -> dict[str, Any]:
    """Everything that is printed."""
    before = machine()
    found = summary(seconds_of(sides(wanted), images, rounds))
    speed = gflops_a_second()
    gflops = counting.count(NAME, {"source": "transformers"}, protocols.get("complexity").at(*images.shape[-2:])).gflops
    forms = [name for name in wanted if name in ("eager", "optimised")]
    return {
        "machine": before,
        "load_after": machine()["load"],
        "size": list(images.shape[-2:]),
        "sides": found,
        "bound": {"gflop": 2 * gflops, "gflop_a_second": speed, "seconds": 2 * gflops / speed},
        "encoders": {name: encoders(images, rounds, name == "optimised") for name in forms},
    }


def tell(found: Mapping[str, Any]) -> None:
    """As a table."""
    here = found["machine"]
    print(f"{here['cpu']}, {here['instructions']}, {here['threads']} threads, torch {here['torch']}")
    print(f"load {here['load']} before, {found['load_after']} after; batch 1 of {'x'.join(map(str, found['size']))}")
    print(f"\n{NAME:<22}{'s, min':>10}{'median':>10}{'ratio':>10}")
    for name, side in found["sides"].items():
        print(f"{name:<22}{side['min']:>10.3f}{side['median']:>10.3f}{side['ratio']:>9.2f}x")
    bound = found["bound"]
    at = f"{bound['gflop']:.0f} GFLOP at {bound['gflop_a_second']:.0f} a second"
    print(f"{'bound':<22}{bound['seconds']:>10.3f}    {at}")
    print(f"\n{'sparse 0.1 over dense':<22}{'time':>10}{'work':>10}{'quotient':>10}")
    for name, ratio in found["encoders"].items():
        print(f"encoder, {name:<13}{ratio['time']:>10.3f}{ratio['multiply-adds']:>10.3f}{ratio['quotient']:>10.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="800x1066", help="of the image, HxW")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sides", default="transformers,eager,optimised", help="of these and bfloat16, by comma")
    parser.add_argument("--json", action="store_true", help="one document on stdout")
    options = parser.parse_args()
    known, wanted = ("transformers", "eager", "optimised", "bfloat16"), options.sides.split(",")
    if unknown := sorted(set(wanted) - set(known)):
        sys.exit(f"--sides: expected some of {', '.join(known)}, got {', '.join(unknown)}")
    torch.set_num_threads(options.threads)
    height, width = (int(side) for side in options.size.split("x"))
    generator = torch.Generator().manual_seed(0)
    found = measure(wanted, torch.randn(1, 3, height, width, generator=generator), options.rounds)
    if options.json:
        print(json.dumps(found))
    else:
        tell(found)


if __name__ == "__main__":
    main()
