"""Which released weights a file holds, told by the names and shapes in it. Imports torch."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from detrbench import models
from detrbench.errors import CheckpointError
from detrbench.models import checkpoints
from detrbench.models.detector import Detector
from detrbench.weights import catalogue
from detrbench.weights.catalogue import Entry

SHOWN = 6


def check(entry: Entry, path: Path) -> None:
    """Raises CheckpointError where a file does not fit the detector of these weights; it names those that it fits."""
    if entry.model is None:
        return
    state, _ = checkpoints.read(path)
    problem = _problem(entry, state, path)
    if problem is not None:
        others = [other.name for other in _fitting(state, path)]
        if not others:
            raise CheckpointError(f"{path.name} is not {entry.name}: {_without(path, problem.message)}", problem.hint)
        hint = "name one of them: detrbench weights import FILE --as NAME"
        raise CheckpointError(f"{path.name} is not {entry.name}: it fits {_some(others)}", hint)


def recognise(path: Path) -> Entry:
    """The weights that a file holds.

    Raises:
        CheckpointError: none of the catalogue, or several that nothing tells apart: a keep ratio leaves no trace.
    """
    state, _ = checkpoints.read(path)
    for entry in catalogue.entries().values():
        if entry.model and entry.file == path.name and _problem(entry, state, path) is None:
            return entry
    fitting = _fitting(state, path)
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        hint = "detrbench convert FILE --model MODEL takes other weights of these code bases"
        raise CheckpointError(f"{path}: the names and shapes in it are of no weights in the catalogue", hint)
    names = [entry.name for entry in fitting]
    raise CheckpointError(f"{path}: fits {_some(names)}", hint=f"name one: detrbench weights import {path} --as NAME")


def _fitting(state: Mapping[str, Tensor], path: Path) -> list[Entry]:
    detectors = [entry for entry in catalogue.entries().values() if entry.model]
    adapter = checkpoints.adapter_for(state, path).name
    return [entry for entry in detectors if entry.adapter == adapter and _problem(entry, state, path) is None]


def _problem(entry: Entry, state: Mapping[str, Tensor], path: Path) -> CheckpointError | None:
    try:
        checkpoints.check(_shapes(str(entry.model), json.dumps(entry.options, sort_keys=True)), state, path)
    except CheckpointError as error:
        return error
    return None


@functools.lru_cache(maxsize=64)
def _shapes(model: str, options: str) -> Detector:
    """The detector without memory for its values; options as JSON."""
    with torch.device("meta"):
        return models.create(model, **json.loads(options))


def _without(path: Path, message: str) -> str:
    return message.removeprefix(f"{path}: ")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
