"""Quantities as they are read from cells, and what two of them differ by.

Imports no torch. A difference is taken in pairs wherever both sides share something: the same images (AP), the same
rounds of the same processes (latency). Where they do not, the difference says so and its interval is as wide as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from detrbench import statistics
from detrbench.compare.quantities import Quantity
from detrbench.environment import hardware
from detrbench.measures import COMMON
from detrbench.results.folder import CellFolder
from detrbench.results.store import CellResult
from detrbench.statistics import Evidence


@dataclass(frozen=True)
class Reading:
    """A figure of one cell, with all that a comparison needs to know of where it comes from.

    `rounds` are times by process and round, NaN where left out; `images` is the file of what each image contributed,
    valid for the record with the key `key`. `note` is what the timing itself said of its machine.
    """

    quantity: Quantity
    evidence: Evidence
    protocol: str
    version: int
    hardware: str
    processes: int = 1
    session: str = ""
    rounds: tuple[tuple[float, ...], ...] = ()
    images: Path | None = None
    key: str = ""
    notes: tuple[str, ...] = ()


def read(cell: CellResult, quantity: Quantity, protocol: str | None = None) -> Reading | None:
    """A figure of a cell; without a protocol `common`, else the first there is. None where it was not measured."""
    found = cell.records.get(quantity.measure, {})
    protocol = protocol or (COMMON if COMMON in found else next(iter(sorted(found)), ""))
    record = found.get(protocol)
    value = _value(record, quantity) if record is not None else None
    if record is None or value is None:
        return None
    envelope = cell.envelopes.get(quantity.measure, {})
    where = hardware(envelope.get("environment") or {}, envelope.get("device"))
    version = int(record.get("protocol_version") or 0)
    if quantity.measure == "latency":
        return _latency(quantity, record, protocol, version, where)
    estimate = _at(record, quantity.path)
    evidence = _from_interval(estimate) if isinstance(estimate, Mapping) else Evidence(value)
    images = CellFolder(cell.folder).images if quantity.measure == "accuracy" else None
    return Reading(quantity, evidence, protocol, version, where, images=images, key=str(envelope.get("key", "")))


def _value(record: Mapping[str, Any], quantity: Quantity) -> float | None:
    value = _at(record, quantity.path)
    value = value.get("value") if isinstance(value, Mapping) else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _at(record: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = record
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _from_interval(estimate: Mapping[str, Any]) -> Evidence:
    """The normal distribution with a record's 95 % interval."""
    low, high = estimate.get("low"), estimate.get("high")
    if low is None or high is None:
        return Evidence(float(estimate["value"]), math.inf)
    return Evidence(float(estimate["value"]), (high - low) / (2 * 1.959964))


def _latency(quantity: Quantity, record: Mapping[str, Any], protocol: str, version: int, where: str) -> Reading | None:
    processes = int(record.get("processes") or 1)
    left_out, samples = set(record.get("marked") or []), record.get("samples_ms") or []
    clean = [math.nan if i in left_out else float(value) for i, value in enumerate(samples)]
    size = len(clean) // processes
    rounds = tuple(tuple(clean[i * size : (i + 1) * size]) for i in range(processes)) if size else ()
    evidence = (
        statistics.of_processes(rounds) if rounds else Evidence(_value(record, quantity) or 0.0, math.inf, 1, True)
    )
    # The figure shown is the record's; with one process its median and ours are the same.
    session, notes = str(record.get("session") or ""), (*_noise(record), *(record.get("warnings") or ()))
    return Reading(quantity, evidence, protocol, version, where, processes, session, rounds, notes=notes)


def _noise(record: Mapping[str, Any]) -> tuple[str, ...]:
    """What a detector took against itself in the same rounds: the noise of the machine."""
    ratio = record.get("self_ratio") or {}
    if ratio.get("low") is None or ratio.get("high") is None:
        return ()
    return (f"against itself {ratio['value']:.3f} x [{ratio['low']:.3f}, {ratio['high']:.3f}]",)


@dataclass(frozen=True)
class Difference:
    """What a reading differs from another by: a ratio where the figure is relative, else a difference.

    `notes` say what the comparison rests on where that is not the best there could be; where `comparable` is not set,
    no verdict may be drawn from it.
    """

    evidence: Evidence
    notes: tuple[str, ...] = ()
    comparable: bool = True


def difference(new: Reading, old: Reading) -> Difference:
    """New against old."""
    quantity = new.quantity
    if (new.protocol, new.version) != (old.protocol, old.version):
        rules = f"{old.protocol} version {old.version} and {new.protocol} version {new.version}"
        return Difference(_plain(new, old), (f"not the same protocol: {rules}",), comparable=False)
    if quantity.exact:
        return Difference(_plain(new, old))
    if quantity.measure in ("latency", "memory") and new.hardware != old.hardware:
        return Difference(_plain(new, old), (f"not the same hardware: {old.hardware} and {new.hardware}",), False)
    if quantity.measure == "latency":
        return _latency_ratio(new, old)
    if quantity.measure == "accuracy":
        return _ap_difference(new, old)
    return Difference(_plain(new, old))


def _plain(new: Reading, old: Reading) -> Evidence:
    """As if the two had nothing in common."""
    if not new.quantity.relative:
        return new.evidence.minus(old.evidence)
    return new.evidence.over(old.evidence) if old.evidence.value else Evidence(math.inf, math.inf, log=True)


def _latency_ratio(new: Reading, old: Reading) -> Difference:
    same_rounds = new.session == old.session != "" and list(map(len, new.rounds)) == list(map(len, old.rounds))
    if same_rounds:
        notes = () if new.processes > 1 else ("timed in one process: variation between processes is unknown",)
        return Difference(statistics.paired_ratio(new.rounds, old.rounds), notes)
    plain = _plain(new, old)
    if min(new.processes, old.processes) > 1:
        return Difference(plain, ("not timed together, so unpaired",))
    note = "not timed together, and variation between processes is unknown"
    return Difference(Evidence(plain.value, math.inf, 1, log=True), (note,))


def _ap_difference(new: Reading, old: Reading) -> Difference:
    from detrbench.measure import ap_images

    found = [ap_images.read(each.images, each.protocol) if each.images else None for each in (new, old)]
    mine, theirs = (one if one and one.key == each.key else None for one, each in zip(found, (new, old)))
    if mine is None or theirs is None:
        note = "unpaired: per-image results are missing; run accuracy again with --fresh"
        return Difference(_plain(new, old), (note,))
    if mine.images != theirs.images:
        return Difference(_plain(new, old), ("unpaired: not the same images",))
    of: Literal["ap", "ap50"] = "ap50" if new.quantity.name == "ap50" else "ap"
    return Difference(ap_images.paired_difference(mine, theirs, of))
