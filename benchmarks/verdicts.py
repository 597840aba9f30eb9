"""What `check` finds and what it invents: injected slowdowns, a damaged weight, and checks of nothing at all.

    python benchmarks/verdicts.py                   everything; about 20 minutes on two cores
    python benchmarks/verdicts.py --checks 10 --rounds 15 --part slowdowns

Slowdowns are real work: the slowed detector repeats part of its forward. Each check is judged by the code of `detrbench
check`, with its looks and its share of false alarms.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detrbench import models, statistics
from detrbench.check.judge import FALSE_ALARMS
from detrbench.data import open_dataset
from detrbench.data.spec import DataSpec
from detrbench.data.transforms import Eval, Train
from detrbench.measure import accuracy, ap_interval, latency, protocols, scoring, timing
from detrbench.statistics import Evidence
from detrbench.training import loop
from detrbench.training.recipe import Recipe

MARGIN = 1.02  # the budget: latency(new) <= 1.02 x latency(old)
LOOKS = 3
SMALL = {"num_queries": 100, "num_encoder_layers": 2, "num_decoder_layers": 2, "num_classes": 10}


class Slowed(nn.Module):
    """A detector that spends a share more time: after its forward it computes for that long again."""

    def __init__(self, detector: nn.Module, share: float) -> None:
        super().__init__()
        self.detector, self.share = detector, share
        self.work = torch.randn(96, 96)

    @property
    def parts(self) -> Any:
        """Those of the detector."""
        return self.detector.parts

    def forward(self, images: Tensor, masks: Tensor | None) -> Any:
        """The detector's output, late."""
        began = time.thread_time()
        out = self.detector(images, masks)
        until = began + (1 + self.share) * (time.thread_time() - began)
        while time.thread_time() < until:
            torch.mm(self.work, self.work)
        return out


def look(old: nn.Module, new: nn.Module, rounds: int, processes: int) -> Evidence:
    """The ratio of their times, from interleaved rounds; processes are stood in for by repeats in this one."""
    protocol = dataclasses.replace(protocols.get("latency").at(128, 128, rounds=rounds), warmup_seconds=0.2)
    found = [timing.time_together({"old": old, "new": new}, protocol, process=number) for number in range(processes)]
    times = {name: latency._undisturbed([each.samples[name] for each in found]) for name in ("old", "new")}
    return statistics.paired_ratio(times["new"], times["old"])


def check(old: nn.Module, new: nn.Module, rounds: int) -> tuple[str, list[float]]:
    """(broken, holds or unclear; the ratio of each look) of the budget, as `detrbench check` decides it."""
    level, ratios = FALSE_ALARMS / LOOKS, []
    for processes in (1, 3, 6):
        found = look(old, new, rounds, processes)
        ratios.append(found.value)
        if found.p_above(MARGIN) <= level:
            return "broken", ratios
        if found.p_below(MARGIN) <= level:
            return "holds", ratios
    return "unclear", ratios


def slowdowns(options: argparse.Namespace) -> dict[str, Any]:
    """How often a slowdown of 5 % and of 10 % breaks the budget."""
    detector, rows = _detector(), {}
    for share in (0.05, 0.10):
        slowed = Slowed(detector, share)
        rows[f"slower by {share:.0%}"] = _count(
            options.repeats, functools.partial(check, detector, slowed, options.rounds)
        )
    return rows


def nothing(options: argparse.Namespace) -> dict[str, Any]:
    """How often a detector breaks the budget against itself."""
    detector = _detector()
    return {"A/A": _count(options.checks, lambda: check(detector, detector, options.rounds))}


def damaged(options: argparse.Namespace) -> dict[str, Any]:
    """Whether an AP that a damaged weight costs about a point is found against `ap >= baseline - 0.3`."""
    easy = {"image_size": 96, "max_objects": 3, "min_size": 24, "clutter": 0.1, "texture_cue": 1.0}
    spec = DataSpec(kind="shapes", num_train=1000, num_val=options.images, **easy)
    train, val = (open_dataset(spec, split) for split in ("train", "val"))
    options_small = {**SMALL, "hidden_dim": 64, "num_heads": 4, "ffn_dim": 128, "width": 16, "num_queries": 30}
    detector = models.create("efficient_detr_tiny", **{**options_small, "num_classes": val.num_classes})
    rates = {"lr": 2e-3, "lr_backbone": 2e-3, "lr_drops": [options.epochs - 2], "warmup_steps": 50, "clip_norm": 1.0}
    recipe = Recipe(epochs=options.epochs, batch_size=16, eval_every_epochs=0, **rates)
    with tempfile.TemporaryDirectory() as folder:
        loop.train(detector, train, Train((96,), 96, crop=False), recipe, Path(folder))
    rule = protocols.get("accuracy")

    def matches() -> ap_interval.Matches:
        found = accuracy.collect(detector, val, [rule], transform=Eval(96, 96))[rule.name]
        return scoring.score(found, val, rule).matched.of_all_sizes()

    before, rows = matches(), {}
    weight = detector.parts["heads"].class_embed[-1].weight
    for scale in (0.0, 0.1, 0.2, 0.26, 0.3, 0.4):
        torch.manual_seed(0)
        kept = weight.detach().clone()
        with torch.no_grad():
            weight += scale * weight.std() * torch.randn_like(weight)
        found = ap_interval.paired_difference(matches(), before)
        with torch.no_grad():
            weight.copy_(kept)
        broken = found.p_below(-0.3) <= FALSE_ALARMS / LOOKS if not found.exact else found.value < -0.3
        low, high = found.interval()
        values = {"AP lost": 0.0 - found.value, "low": 0.0 - high, "high": 0.0 - low}
        rows[f"weight noise {scale:g}"] = {
            **{name: round(value, 2) for name, value in values.items()},
            "broken": broken,
        }
    return rows


def _count(repeats: int, one: Callable[[], tuple[str, list[float]]]) -> dict[str, Any]:
    outcomes = [one() for _ in range(repeats)]
    words = [word for word, _ in outcomes]
    return {
        "checks": repeats,
        **{word: words.count(word) for word in ("broken", "holds", "unclear")},
        "last ratios": [round(ratios[-1], 4) for _, ratios in outcomes],
    }


def _detector() -> nn.Module:
    torch.manual_seed(0)
    return models.create("efficient_detr_tiny", **SMALL).eval()


PARTS: Mapping[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "slowdowns": slowdowns,
    "nothing": nothing,
    "damaged": damaged,
}


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=[*PARTS, "all"], default="all")
    parser.add_argument("--checks", type=int, default=50, help="A/A checks")
    parser.add_argument("--repeats", type=int, default=10, help="checks of each slowdown")
    parser.add_argument("--rounds", type=int, default=30, help="rounds of each process")
    parser.add_argument("--epochs", type=int, default=12, help="of the detector whose weight is damaged")
    parser.add_argument("--images", type=int, default=1000, help="that its AP is measured on")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = {name: part(options) for name, part in PARTS.items() if options.part in (name, "all")}
    if options.json:
        print(json.dumps(found, indent=1))
        return
    print(f"budget: latency(new) <= {MARGIN} x latency(old); false alarms of a check at most {FALSE_ALARMS:.0%}")
    for rows in found.values():
        for name, row in rows.items():
            print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
