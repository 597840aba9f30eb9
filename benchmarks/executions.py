"""A training step in each of the ways that a recipe can ask for: time and peak memory, four families, one process.

    python benchmarks/executions.py
    python benchmarks/executions.py --device cuda --backbone r50 --size 800x1216 --images 2
    python benchmarks/executions.py --ways float32,checkpointed --families focus_detr

Each way has a detector of its own, with the same weights, and they take their steps in turn; printed are the median of
each, also as a share of float32's, and the peak of memory above what was held before the step. `compiled` compiles at
its first step, which takes minutes and is not counted. Timings on a CPU say little of a GPU: bf16 is slower on most.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from training_step import batch_of, detector_of, parser_of, words_of

from detrbench.data.loading import Batch
from detrbench.measure.memory import MIB
from detrbench.training import optimiser
from detrbench.training.execution import Precision, prepare
from detrbench.training.recipe import BF16, Recipe
from detrbench.training.step import Part, train_step
from detrbench.worker.peak import peak

FLOAT32 = Recipe()
WAYS: Mapping[str, Recipe] = {
    "float32": FLOAT32,
    "fused": dataclasses.replace(FLOAT32, fused_adamw=True),
    "channels_last": dataclasses.replace(FLOAT32, channels_last=True),
    "checkpointed": dataclasses.replace(FLOAT32, activation_checkpointing=True),
    "compiled": dataclasses.replace(FLOAT32, compile=True),
    "bf16": dataclasses.replace(FLOAT32, precision=BF16),
    "all": Recipe(precision=BF16, fused_adamw=True, channels_last=True, activation_checkpointing=True, compile=True),
}


@dataclass(frozen=True)
class Cost:
    """Of one step."""

    family: str
    way: str
    milliseconds: float
    peak_mib: float


class Trained:
    """A detector that takes steps in one way."""

    def __init__(self, family: str, backbone: str, recipe: Recipe, batch: Batch, device: torch.device) -> None:
        self.detector = detector_of(family, backbone).to(device)
        prepare(self.detector, recipe)
        self.optim, self.part = optimiser.build(self.detector, recipe), Part.of([batch])
        self.precision, self.clip_norm = Precision(recipe.precision, device), recipe.clip_norm

    def step(self) -> None:
        train_step(self.detector, self.optim, self.part, self.clip_norm, 1.0, precision=self.precision)

    def milliseconds(self) -> float:
        start = time.perf_counter()
        self.step()
        if self.precision.device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) * 1e3


def costs(
    family: str, ways: Sequence[str], backbone: str, batch: Batch, device: torch.device, rounds: int
) -> list[Cost]:
    """Of each way, run in turn."""
    trained = {way: Trained(family, backbone, WAYS[way], batch, device) for way in ways}
    for each in trained.values():  # warm up: moments, compiled code, caches
        each.step()
        each.step()
    times = [{way: each.milliseconds() for way, each in trained.items()} for _ in range(rounds)]
    return [
        Cost(family, way, statistics.median(each[way] for each in times), peak(one.step, device) / MIB)
        for way, one in trained.items()
    ]


def table(found: Sequence[Cost]) -> list[str]:
    """A line for each way, beside the first one of its family."""
    form = "{:<28}{:<16}{:>12}{:>8}{:>12}{:>8}"
    lines, first = [form.format("family", "way", "ms", "", "peak MiB", "")], found[0]
    for cost in found:
        first = first if first.family == cost.family else cost
        shares = cost.milliseconds / first.milliseconds, cost.peak_mib / first.peak_mib
        time_, memory = (f"x {share:.2f}" for share in shares)
        lines.append(
            form.format(cost.family, cost.way, f"{cost.milliseconds:.1f}", time_, f"{cost.peak_mib:.1f}", memory)
        )
    return lines


def main() -> None:
    parser = parser_of(__doc__, rounds=5)
    parser.add_argument("--ways", default=",".join(WAYS), help="which of them, by comma")
    options = parser.parse_args()
    device = torch.device(options.device)
    batch, ways = batch_of(options).to(device), options.ways.split(",")
    found: list[Cost] = []
    for family in options.families.split(","):
        found += costs(family, ways, options.backbone, batch, device, options.rounds)
    if options.json:
        print(json.dumps({"torch": torch.__version__, "costs": [asdict(cost) for cost in found]}))
        return
    print(words_of(options), *table(found), sep="\n")


if __name__ == "__main__":
    main()
