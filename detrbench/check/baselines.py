"""Figures that later results are held against: small files in git, one for each suite, scale and hardware.

    baselines/<suite>/<scale>/<hardware>.yaml           value, standard error and degrees of freedom of each figure
    baselines/<suite>/<scale>/<hardware>/<cell>.npz     what each image contributed to AP, so that images can be paired;
                                                        of a second seed <cell>#1.npz

Figures without noise (GFLOPs, parameters) are the same on every machine and are read from any of the files; a suite of
nothing else has the one file `any.yaml`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import detrbench
from detrbench import renamed, yaml12
from detrbench.compare import differences
from detrbench.compare.differences import Reading, Training
from detrbench.compare.quantities import QUANTITIES, Quantity
from detrbench.errors import SuiteError, UsageError
from detrbench.files import write_atomic
from detrbench.results.folder import CellFolder
from detrbench.results.store import CellResult
from detrbench.statistics import Evidence

ANY = "any"


@dataclass(frozen=True)
class Baseline:
    """One file: cell -> figure -> protocol -> entry."""

    path: Path
    hardware: str
    reason: str
    cells: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]]


@dataclass(frozen=True)
class Baselines:
    """All files of a suite at a scale."""

    folder: Path
    files: list[Baseline]

    def on(self, hardware: str) -> Baseline | None:
        """The file of that hardware."""
        return next((each for each in self.files if each.hardware == hardware), None)

    def reading(self, cell: str, like: Reading) -> Reading | str:
        """The figure that answers to a reading; or why there is none that may be compared with it."""
        mine = self.on(like.hardware)
        candidates = [mine] if mine else []
        if like.quantity.exact:
            candidates += [each for each in self.files if each is not mine]
        for baseline in candidates:
            entry = baseline.cells.get(cell, {}).get(like.quantity.name, {}).get(like.protocol)
            if entry is not None:
                return _reading(entry, like, baseline, cell)
        if not candidates and self.files:
            known = ", ".join(each.hardware for each in self.files)
            return f"no baseline of this hardware ({like.hardware}); there are some of {known}"
        return ""


def _reading(entry: Mapping[str, Any], like: Reading, baseline: Baseline, cell: str) -> Reading:
    se, df = entry.get("se", 0.0), entry.get("df")
    evidence = Evidence(
        float(entry["value"]),
        math.inf if se is None else float(se),
        math.inf if df is None else float(df),
        log=like.evidence.log,
    )
    hardware = like.hardware if like.quantity.exact else baseline.hardware
    return Reading(
        like.quantity,
        evidence,
        like.protocol,
        int(entry["version"]),
        hardware,
        processes=int(entry.get("processes", 1)),
        trainings=tuple(_trainings(entry, evidence, baseline.path, cell)) if like.trainings else (),
        given=bool(entry.get("given")),
    )


def _trainings(entry: Mapping[str, Any], evidence: Evidence, baseline: Path, cell: str) -> Iterator[Training]:
    """The trainings behind an entry: as it lists them, else the one that it is itself of."""
    for number, each in enumerate(entry.get("seeds") or [{**entry, "se": evidence.se}]):
        se = math.inf if each.get("se") is None else float(each["se"])
        yield Training(float(each["value"]), se, str(each.get("key", "")), _images(baseline, cell, number))


def _images(baseline: Path, cell: str, number: int) -> Path:
    """Where a baseline keeps what each image contributed to the AP of a training."""
    return baseline.with_suffix("") / (f"{cell}#{number}.npz" if number else f"{cell}.npz")


def load(root: Path, suite: str, scale: str) -> Baselines:
    """The baselines of a suite at a scale; none is no mistake.

    Raises:
        SuiteError: a file that is not a baseline.
    """
    folder = renamed.place(root, suite) / scale
    return Baselines(folder, [_read(path) for path in sorted(folder.glob("*.yaml"))])


def _read(path: Path) -> Baseline:
    document = yaml12.load(path)
    value = document.value
    try:
        cells = value["cells"]
        for figures_of in cells.values():
            for protocols in figures_of.values():
                for entry in protocols.values():
                    _ = float(entry["value"]), int(entry["version"])
        return Baseline(path, str(value["hardware"]), str(value["reason"]), cells)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        hint = "detrbench check SUITE --update-baseline REASON writes it anew"
        raise SuiteError(f"{path}:1:1: not a baseline: {error!r}", hint) from None


def update(root: Path, suite: str, scale: str, cells: Iterable[CellResult], reason: str) -> tuple[Path, list[str]]:
    """Writes the baseline of these results; returns its file and what became different.

    Raises:
        UsageError: no reason, nothing measured, or results of several machines.
    """
    if not reason.strip():
        raise UsageError("--update-baseline: expected a reason, got nothing", hint="it is kept in the baseline's file")
    cells = [cell for cell in cells if cell.records]
    readings = {cell.id: list(_readings(cell)) for cell in cells}
    found = [reading for each in readings.values() for reading in each]
    machines = sorted({reading.hardware for reading in found if not reading.quantity.exact})
    if not found:
        raise UsageError(f"{suite} at scale {scale}: nothing is measured", hint=f"detrbench run {suite}")
    if len(machines) > 1:
        raise UsageError(f"{suite} at scale {scale}: results of several machines: {', '.join(machines)}")
    hardware = machines[0] if machines else ANY
    path = renamed.place(root, suite) / scale / f"{hardware}.yaml"
    entries = {id_: _entries(each) for id_, each in readings.items()}
    changes = _changes(_read(path).cells if path.exists() else {}, entries)
    head = {"suite": suite, "scale": scale, "hardware": hardware, "reason": reason, "detrbench": detrbench.__version__}
    write_atomic(path, yaml.safe_dump({**head, "cells": entries}, sort_keys=False, allow_unicode=True, width=110))
    for cell in cells:
        kept = [images for each in cell.trainings if (images := CellFolder(each.folder).images).is_file()]
        for number, images in enumerate(kept):
            write_atomic(_images(path, cell.id, number), images.read_bytes())
    return path, changes


def _readings(cell: CellResult) -> Iterable[Reading]:
    for quantity in QUANTITIES.values():
        for protocol in cell.records.get(quantity.measure, {}):
            reading = differences.read(cell, quantity, protocol)
            if reading is not None:
                yield reading


def _entries(readings: list[Reading]) -> dict[str, dict[str, dict[str, Any]]]:
    entries: dict[str, dict[str, dict[str, Any]]] = {}
    for reading in readings:
        evidence = reading.evidence
        entry: dict[str, Any] = {"value": _rounded(evidence.value), "version": reading.version}
        if not evidence.exact:
            entry["se"] = _rounded(evidence.se) if math.isfinite(evidence.se) else None
        if not evidence.exact and math.isfinite(evidence.df):
            entry["df"] = _rounded(evidence.df)
        if reading.processes > 1:
            entry["processes"] = reading.processes
        if reading.given:
            entry["given"] = True
        if len(reading.trainings) > 1:
            entry["seeds"] = [_entry_of(each) for each in reading.trainings]
        elif reading.trainings and reading.trainings[0].images is not None:
            entry["key"] = reading.trainings[0].key
        entries.setdefault(reading.quantity.name, {})[reading.protocol] = entry
    return entries


def _entry_of(training: Training) -> dict[str, Any]:
    se = _rounded(training.se) if math.isfinite(training.se) else None
    return {"value": _rounded(training.value), "se": se, "key": training.key}


def _rounded(value: float) -> float:
    return float(f"{value:.8g}")


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """`sparse-0.3 gflops 12.1 -> 12.4`, cells that came and went."""
    lines = [f"{id_}: new" for id_ in after if id_ not in before] if before else []
    lines += [f"{id_}: gone" for id_ in before if id_ not in after]
    for id_ in after:
        for name, by_protocol in after[id_].items():
            for protocol, entry in by_protocol.items():
                old = before.get(id_, {}).get(name, {}).get(protocol)
                if old is not None and old["value"] != entry["value"]:
                    was, now = (_short(QUANTITIES[name], each) for each in (old, entry))
                    lines.append(f"{id_} {name} ({protocol}): {was} -> {now}")
    return lines


def _short(quantity: Quantity, entry: Mapping[str, Any]) -> str:
    return f"{float(entry['value']):.{quantity.decimals + 1}f}"
