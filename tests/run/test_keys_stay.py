"""The keys under which results are kept are those of earlier versions.

Another key makes every record of every user due again, so a key changes only where a figure does. After such a change
`pytest --record tests/run/test_keys_stay.py` writes the keys anew, and the review sees which ones changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from shipped_suites import load

from detrbench import models
from detrbench.external import sources
from detrbench.measures import CHOSEN
from detrbench.models.backbones import imagenet
from detrbench.results.store import ResultsStore
from detrbench.run import plan, start
from detrbench.run.keys import Conditions
from detrbench.run.start import Start
from detrbench.suite import loading as suites
from detrbench.weights import catalogue
from detrbench.weights.named import Weights

ENVIRONMENT = {"torch": "2.11", "cpu": "a", "cores": 2, "threads": 2, "python": "3.11", "gpus": []}


def start_of(cell: suites.Cell) -> Start:
    """The cell's own, were the published files here: each with a hash that follows from its name."""
    spec = models.resolve(str(cell.model), cell.options)
    init = cell.settings.recipe.init
    if init == "none":
        return start.of(cell)
    entry = catalogue.get(imagenet.published(spec.parts["backbone"], spec.options)[0] if init == "imagenet" else init)
    return Start(Weights(Path(str(entry.file)), entry, f"sha256 of {entry.file}"))


def keys_of(cells: list[suites.Cell]) -> dict[str, str]:
    """{folder of a cell: "measure:first digits of its key" for each measure}, where all data are at hand."""
    runnable = [cell for cell in cells if not cell.published_only]
    conditions = Conditions(
        lambda cell, split: f"{cell.settings.data} {split}",
        lambda cell, split: 8,
        ENVIRONMENT,
        "cpu",
        frozenset(cell.model for cell in runnable if cell.model),
        start_of,
    )
    found = defaultdict(list)
    for item in plan.work_items(runnable, CHOSEN, ResultsStore("nowhere"), conditions, fresh=True, train=True):
        found[item.folder.path.name].append(f"{item.measure}:{item.key[:8]}")
    return {name: " ".join(keys) for name, keys in found.items()}


def identity(source: sources.Source, options: Mapping[str, Any], python: str | None) -> list[Any]:
    """A detector from elsewhere, whatever is installed."""
    return [source.text, options]


def test_keys_of_shipped_suites_stay(recorded: Callable[[str, Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "identity", identity)
    found = {}
    for name in suites.names():
        loaded = load(name)
        for scale in loaded.suite.scales:
            data = {"path": "/data/coco"} if loaded.suite.scales[scale].data == "coco" else {}
            found[f"{name}/{scale}"] = keys_of(loaded.cells(scale, data))
    earlier = recorded("keys", found)
    assert sum(map(len, earlier.values())) > 700
    for place, cells in earlier.items():  # rows, suites and measures may be added
        for name, keys in cells.items():
            assert set(keys.split()) - set(found[place].get(name, "").split()) == set(), (place, name)
