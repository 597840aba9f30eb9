"""Counts of detectors by name, each taken once: kept in the user's caches, as they depend on nothing but the code.

A count lies in `~/.cache/detrbench/counts` (`DETRBENCH_CACHE` names another folder), in a folder for the sources that
count and the versions of what they build on, under a hash of the detector's parts and options and of the protocol.
What is missing, damaged or cannot be written is counted, and nobody need know. Imports torch only to count.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import detrbench
from detrbench import models
from detrbench.environment import version
from detrbench.errors import DetrbenchError
from detrbench.files import cache_folder, write_atomic
from detrbench.measure.protocols.complexity import ComplexityProtocol
from detrbench.models import DetectorSpec
from detrbench.models.parts import get_part
from detrbench.results import records
from detrbench.results.records import Complexity, CrossCheck

_PACKAGES = ("torch", "torchvision", "fvcore")
_MOST = 4  # kept folders: one for each state of the sources


def count(
    model: str, options: Mapping[str, Any], protocol: ComplexityProtocol, cross_check: bool = False, anew: bool = False
) -> Complexity:
    """The complexity of a named detector.

    Args:
        model: its name.
        options: as for `models.create`.
        protocol: input rule, counting rule and what runs.
        cross_check: ask other counters too.
        anew: count it even where the count is known.

    Raises:
        UsageError: no such model, or options that it does not take.
    """
    spec = models.resolve(model, {**options, **protocol.overrides})
    path = _path(spec, protocol, cross_check)
    known = None if anew or path is None else _read(path)
    if known is None:
        from detrbench.measure import complexity

        known = complexity.measure(functools.partial(models.create, model, **options), protocol, cross_check)
        if path is not None:
            _keep(path, known)
    return known


def _path(spec: DetectorSpec, protocol: ComplexityProtocol, cross_check: bool) -> Path | None:
    """Where a count is kept; None for a detector with parts of others, whose sources nobody knows."""
    factories = [get_part(kind, name).factory for kind, name in spec.parts.items()]
    if not all(isinstance(factory, str) and factory.startswith(f"{detrbench.__name__}.") for factory in factories):
        return None
    rule = [protocol.rule.name, protocol.rule.costs, sorted(protocol.inputs.sizes().items())]
    asked = [protocol.name, protocol.version, protocol.convention, protocol.outputs, rule, cross_check]
    text = json.dumps([dict(spec.parts), dict(spec.options), asked], sort_keys=True, default=dict)
    with contextlib.suppress(RuntimeError):  # nobody's home
        return _folder() / _sources() / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
    return None


def _folder() -> Path:
    return cache_folder() / "counts"


@functools.cache
def _sources() -> str:
    """A hash of the code that counts, and of what is counted."""
    house = Path(detrbench.__file__).parent
    files = [*(house / "measure").glob("*.py"), *(house / "models").resolve().rglob("*.py"), Path(records.__file__)]
    digest = hashlib.sha256(repr([version(name) for name in _PACKAGES]).encode())
    for path in sorted(files):
        digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _read(path: Path) -> Complexity | None:
    """A kept count, if it is there and holds what was written."""
    try:
        digest, _, text = path.read_text(encoding="utf-8").partition("\n")
        if digest != hashlib.sha256(text.encode()).hexdigest():
            return None
        fields = json.loads(text)
        checks = {name: CrossCheck(**check) for name, check in fields.pop("cross_check").items()}
        return Complexity(**fields, cross_check=checks)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(path: Path, record: Complexity) -> None:
    text = json.dumps(dataclasses.asdict(record))
    with contextlib.suppress(OSError, DetrbenchError):
        new = not path.parent.exists()
        write_atomic(path, f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")
        if new:
            _forget_old(path.parent.parent)


def _forget_old(folder: Path) -> None:
    """Removes the counts of sources that others have followed."""
    states = sorted(folder.iterdir(), key=lambda state: state.stat().st_mtime)
    for state in states[:-_MOST]:
        shutil.rmtree(state, ignore_errors=True)
