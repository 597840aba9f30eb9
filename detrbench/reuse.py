"""Complexity records that exist already, in any suite of a results folder. Imports no torch.

A count depends on the detector and on the rule, on nothing else: equal cells are counted once, and the others get the
same record with a note of the cell that it came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detrbench import models
from detrbench.measure import protocols
from detrbench.results import CellFolder
from detrbench.suite import Cell, digest


def count_keys(cell: Cell) -> dict[str, str]:
    """For each protocol of a cell a hash of all that its count depends on: rule and version, parts and options."""
    detector = models.resolve(str(cell.model), cell.complexity_options)
    return {
        name: digest([name, protocols.get("complexity", name).version, detector.parts, detector.options])
        for name in cell.protocols_of("complexity")
    }


@dataclass(frozen=True)
class Known:
    """A record as JSON, the folder of the cell that it was counted for (relative to the results), and its envelope."""

    record: dict[str, Any]
    counted_for: str
    envelope: dict[str, Any]


class KnownCounts:
    """The counts in a results folder by key. Reads each file once, and again when it has changed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read: dict[Path, int] = {}
        self._by_key: dict[str, Known] = {}

    def of(self, cell: Cell) -> dict[str, Known]:
        """What is known of a cell, by protocol."""
        self._refresh()
        return {name: self._by_key[key] for name, key in count_keys(cell).items() if key in self._by_key}

    def _refresh(self) -> None:
        for path in self.root.glob("*/*/cells/*/complexity.json"):
            changed = path.stat().st_mtime_ns
            if self._read.get(path) != changed:
                self._read[path] = changed
                self._enter(CellFolder(path.parent))

    def _enter(self, folder: CellFolder) -> None:
        envelope = folder.read_envelope("complexity")
        if envelope is None:
            return
        here = folder.path.relative_to(self.root).as_posix()
        for name, key in envelope.get("count_keys", {}).items():
            if name in envelope["records"]:
                origin = envelope.get("counted_for", {}).get(name, here)
                self._by_key.setdefault(key, Known(envelope["records"][name], origin, envelope))
