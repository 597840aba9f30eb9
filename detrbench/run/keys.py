"""What results are kept under: hashes of all that a figure depends on, and of nothing else. Imports no torch.

Nothing but this module hashes cells. Another key makes a record due again, so a change here is a change for every user.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from detrbench.data.sizes import LONGEST, SHORTEST, TRAIN_SCALES
from detrbench.data.spec import Split
from detrbench.environment import timing_identity
from detrbench.external import sources
from detrbench.measure import protocols
from detrbench.measure.protocols.latency import RUNTIMES
from detrbench.measures import EVALUATED, MEASURES
from detrbench.models import DetectorSpec
from detrbench.run import start as starts
from detrbench.run.start import Start
from detrbench.suite.cells import Cell
from detrbench.training.recipe import FLOAT32, RANDOM

BEGINNING = 2
"""Counts up whenever detectors begin with other random values, and so end with other weights."""


@dataclass(frozen=True)
class Conditions:
    """What figures depend on beside the cell: the data, the machine.

    `fingerprint` gives a split's fingerprint and raises DataError where there is no such data; `images` counts it.
    `start` finds the files that a training begins with and raises UsageError where they are not there.
    """

    fingerprint: Callable[[Cell, Split], str]
    images: Callable[[Cell, Split], int]
    environment: Mapping[str, Any]
    device: str
    built: frozenset[str] = field(default_factory=frozenset)
    start: Callable[[Cell], Start] = starts.of


def folder_name(cell: Cell) -> str:
    """`<id>-<hash8>`, safe as a file name; another setting anywhere gives another hash."""
    parts = [cell.id, cell.model, cell.options, cell.complexity_options, _settings(cell), cell.checkpoint]
    if cell.weights_of:
        parts.append(folder_name(cell.weights_of))
    if cell.source is not None:
        parts.append(cell.source)
    if cell.python is not None:
        parts.append(cell.python)
    return f"{re.sub(r'[^A-Za-z0-9_.=+-]+', '_', cell.id)}-{_digest(parts)[:8]}"


def record_key(cell: Cell, measure: str, now: Conditions, weights: str) -> str:
    """The key of one measure of one cell; training and counting have keys of their own.

    Args:
        cell: what is measured.
        measure: its name.
        now: data and machine.
        weights: a hash of the weights, or of all that training them depends on; "random" where their values do not
            matter.
    """
    rules = [[name, protocols.get(measure, name).version] for name in cell.protocols_of(measure)]
    parts: list[Any] = [measure, rules, _detector(cell), weights, *_seen(cell)]
    if MEASURES[measure].needs_weights:
        parts.append(now.fingerprint(cell, "val"))
    if MEASURES[measure].timed:
        parts += [now.device, timing_identity(now.environment)]
        parts += [now.environment.get(name) for name, _ in rules if name in RUNTIMES]
        if cell.settings.data == "coco" and not cell.settings.papers_size:
            parts.append("at the evaluation's size")  # once it was the papers'
    return _digest(parts)


def detections_key(cell: Cell, now: Conditions, weights: str) -> str:
    """A hash of all that one forward over the evaluation images depends on; protocols score what it detects."""
    return _digest(["detections", _detector(cell), weights, *_seen(cell), now.fingerprint(cell, "val")])


def predictions_key(predictions: str, truth: str) -> str:
    """The key of the accuracy of predictions from elsewhere: sha256 of their file and of the annotations'."""
    return _digest(["predictions", protocols.get("accuracy").version, predictions, truth])


def training_key(cell: Cell, now: Conditions) -> str:
    """A hash of detector, recipe, data and the content of the files that it begins with: equal ones give equal weights.

    Raises:
        UsageError: one of these files is missing.
    """
    start = now.start(cell)
    files = {"init": start.backbone, "init_from": start.detector}
    recipe = {name: value for name, value in _settings(cell).items() if name not in files}
    # Files count by what they hold, whatever they are called and wherever they lie.
    recipe |= {name: file.sha256 for name, file in files.items() if file}
    return _digest(["training", BEGINNING, _detector(cell), recipe, now.fingerprint(cell, "train")])


def complexity_key(cell: Cell) -> str:
    """A hash of all counts of a cell; it needs neither data nor weights."""
    return _digest(["complexity", *count_keys(cell).values()])


def count_keys(cell: Cell) -> dict[str, str]:
    """For each protocol of a cell a hash of all that its count depends on: rule and version, parts and options."""
    keys = {
        name: _digest([name, protocols.get("complexity", name).version, *_counted(cell)])
        for name in cell.protocols_of("complexity")
    }
    if EVALUATED in keys:
        version = protocols.get("complexity", EVALUATED).version
        keys[EVALUATED] = _digest([EVALUATED, version, _detector(cell), cell.settings.data == "coco", *_seen(cell)])
    return keys


# Settings that there was no choice of once: at these values they count as if they were not there.
_AS_EVER = {
    "init": RANDOM,
    "init_from": None,
    "weight_decay_norm": None,
    "weight_decay_bias": None,
    "ema_warmup": None,
    "warmup_factor": None,
    "iterations_per_epoch": None,
    "aspect_ratio_grouping": False,
    "precision": FLOAT32,
    "fused_adamw": False,
    "channels_last": False,
    "compile": False,
}
# Settings that change the memory or time of a training, and no bit of its weights.
_WITHOUT_EFFECT = ("activation_checkpointing",)


def _settings(cell: Cell) -> dict[str, Any]:
    """Data, sizes and recipe. What was done before there was a choice is left out, so that it has the key of then."""
    found = cell.settings.resolved()
    papers = {"eval_size": [SHORTEST, LONGEST], "train_scales": list(TRAIN_SCALES), "crop": True}
    as_drawn = {"train_scales": [found["eval_size"][0]], "crop": False}
    usual = papers if cell.settings.data == "coco" else as_drawn
    if usual.items() <= found.items():
        del found["train_scales"], found["crop"]
    if found["micro_batch"] in (None, found["batch_size"]):
        del found["micro_batch"]
    drops = found["lr_drops"]
    if drops is None or (len(drops) == 1 and drops[0] == int(drops[0])):  # there was one drop, or none
        del found["lr_drops"]
        found["lr_drop"] = int(drops[0]) if drops else None
    for name in _WITHOUT_EFFECT:
        del found[name]
    return {name: value for name, value in found.items() if name not in _AS_EVER or value != _AS_EVER[name]}


def _seen(cell: Cell) -> list[Any]:
    """How images are evaluated, as a key has it behind what is evaluated."""
    return [cell.settings.eval_size, *(["stretched"] if cell.settings.stretch else [])]


def _detector(cell: Cell) -> list[Any]:
    """The parts and all of their options: two names of one detector are equal, whoever wrote a default out."""
    return _elsewhere(cell) or _described(cell.detector)


def _counted(cell: Cell) -> list[Any]:
    """The same of the detector whose operations are counted; from random weights, where they matter to that."""
    return _elsewhere(cell) or _described(cell.counted)


# Options that parts had no choice of once: at these values they count as if they were not there.
_BUILT_AS_EVER = {
    "self_attention_first": True,
    "proposals_matched_by": "prediction",
    "projection_bias": True,
    "redundancy_removal": False,
}


def _described(detector: DetectorSpec) -> list[Any]:
    as_ever = _BUILT_AS_EVER.items()
    return [detector.parts, {name: value for name, value in detector.options.items() if (name, value) not in as_ever}]


def _elsewhere(cell: Cell) -> list[Any] | None:
    """What a detector from elsewhere is; None for one of ours."""
    return sources.identity(cell.external, cell.options, cell.python) if cell.external else None


def _digest(value: Any) -> str:
    """sha256 of a value as canonical JSON, in hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
