"""Records that exist already, in any suite of a results folder. Imports no torch.

Papers repeat each other's rows, and so do suites: equal cells are counted, trained and evaluated once, and the others
get the same record with a note of the cell that it came from. What is timed is never taken over, since only
interleaved timings can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detrbench import models
from detrbench.measure import protocols
from detrbench.results import CellFolder
from detrbench.suite import Cell, digest

# Beside complexity, which is taken over protocol by protocol. A key covers weights, data and rules.
BY_KEY = ("training", "accuracy", "dam", "queries", "pictures")


def count_keys(cell: Cell) -> dict[str, str]:
    """For each protocol of a cell a hash of all that its count depends on: rule and version, parts and options."""
    detector = models.resolve(str(cell.model), cell.complexity_options)
    return {
        name: digest([name, protocols.get("complexity", name).version, detector.parts, detector.options])
        for name in cell.protocols_of("complexity")
    }


@dataclass(frozen=True)
class Known:
    """A complexity record as JSON, the folder of the cell that it was counted for, and its envelope."""

    record: dict[str, Any]
    counted_for: str
    envelope: dict[str, Any]


@dataclass(frozen=True)
class Equal:
    """The cell that has a record under the same key, and its envelope. `taken_for` is where it was first taken."""

    folder: CellFolder
    taken_for: str
    envelope: dict[str, Any]


class KnownRecords:
    """What a results folder holds, by key. Reads each file once, and again when it has changed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read: dict[Path, int] = {}
        self._counts: dict[str, Known] = {}
        self._equals: dict[tuple[str, str], Equal] = {}

    def counts(self, cell: Cell) -> dict[str, Known]:
        """The counts that a cell needs and that are known, by protocol."""
        self._refresh("complexity")
        return {name: self._counts[key] for name, key in count_keys(cell).items() if key in self._counts}

    def equal(self, measure: str, key: str) -> Equal | None:
        """A cell that has the very record, with the files beside it."""
        if measure not in BY_KEY:
            return None
        self._refresh(measure)
        found = self._equals.get((measure, key))
        return found if found and found.folder.has(measure, key) else None

    def _refresh(self, measure: str) -> None:
        for path in sorted(self.root.glob(f"*/*/cells/*/{measure}.json")):
            changed = path.stat().st_mtime_ns
            if self._read.get(path) != changed:
                self._read[path] = changed
                self._enter(measure, CellFolder(path.parent))

    def _enter(self, measure: str, folder: CellFolder) -> None:
        envelope = folder.read_envelope(measure)
        if envelope is None:
            return
        here = folder.path.relative_to(self.root).as_posix()
        if measure != "complexity":
            self._equals[measure, envelope["key"]] = Equal(folder, envelope.get("taken_for") or here, envelope)
            return
        for name, key in envelope.get("count_keys", {}).items():
            if name in envelope["records"]:
                origin = envelope.get("counted_for", {}).get(name, here)
                self._counts.setdefault(key, Known(envelope["records"][name], origin, envelope))
