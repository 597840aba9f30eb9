"""Records that exist already, in any suite of a results folder. Imports no torch.

Papers repeat each other's rows, and so do suites: equal cells are counted, trained and evaluated once, and the others
get the same record with a note of the cell that it came from. What is timed is never taken over, since only
interleaved timings can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detrbench.measures import MEASURES
from detrbench.results.folder import CellFolder
from detrbench.run.keys import count_keys
from detrbench.suite.cells import Cell


@dataclass(frozen=True)
class KnownRecord:
    """What a cell has under a key: its folder, its envelope, and `origin`, the folder where it was first taken."""

    folder: CellFolder
    envelope: dict[str, Any]
    origin: str


class KnownRecords:
    """What a results folder holds, by key. Reads each file once, and again when it has changed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read: dict[Path, int] = {}
        self._counts: dict[str, KnownRecord] = {}
        self._others: dict[tuple[str, str], KnownRecord] = {}

    def counts(self, cell: Cell) -> dict[str, KnownRecord]:
        """Envelopes that hold the counts which a cell needs, by protocol, as far as they are known."""
        self._refresh("complexity")
        return {name: self._counts[key] for name, key in count_keys(cell).items() if key in self._counts}

    def equal(self, measure: str, key: str) -> KnownRecord | None:
        """A cell that has the very record, with the files beside it; counts are taken over one by one instead."""
        if measure == "complexity" or not MEASURES[measure].reusable:
            return None
        self._refresh(measure)
        found = self._others.get((measure, key))
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
            self._others[measure, envelope["key"]] = KnownRecord(folder, envelope, envelope.get("taken_for") or here)
            return
        for name, key in envelope.get("count_keys", {}).items():
            if name in envelope["records"]:
                origin = envelope.get("counted_for", {}).get(name, here)
                self._counts.setdefault(key, KnownRecord(folder, envelope, origin))
