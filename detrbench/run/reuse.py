"""Records that exist already, in any suite of a results folder. Imports no torch.

Papers repeat each other's rows, and so do suites: equal cells are counted, trained and evaluated once, and the others
get the same record with a note of the cell that it came from. What is timed is never taken over, since only
interleaved timings can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detrbench.errors import Damaged
from detrbench.measures import MEASURES
from detrbench.results.folder import CellFolder
from detrbench.run.keys import count_keys
from detrbench.suite.cells import Cell


@dataclass(frozen=True)
class KnownRecord:
    """What a cell has under a key: its folder, the measure, and `origin`, the folder where it was first taken.

    The record itself is read when it is asked for: those of ten thousand cells fill the memory.
    """

    folder: CellFolder
    measure: str
    key: str
    origin: str

    @property
    def envelope(self) -> dict[str, Any]:
        """The whole of it. Raises Damaged where it is no longer what was found."""
        envelope = self.folder.read_envelope(self.measure)
        if envelope is None or self.key not in (envelope["key"], *envelope.get("count_keys", {}).values()):
            raise Damaged(f"{self.folder.record(self.measure)}: changed while it was taken over", "run again")
        return envelope


class KnownRecords:
    """What a results folder holds, by key. Looks once, and again where that is asked for and something is missing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._looked: set[str] = set()
        self._counts: dict[str, KnownRecord] = {}
        self._others: dict[tuple[str, str], KnownRecord] = {}

    def counts(self, cell: Cell, anew: bool = False) -> dict[str, KnownRecord]:
        """Envelopes that hold the counts which a cell needs, by protocol, as far as they are known.

        Args:
            cell: whose detector was to be counted.
            anew: look again where some are missing; others may have left them meanwhile.
        """
        keys = count_keys(cell)
        if "complexity" not in self._looked or (anew and not self._counts.keys() >= set(keys.values())):
            self._look("complexity")
        return {name: self._counts[key] for name, key in keys.items() if key in self._counts}

    def equal(self, measure: str, key: str, anew: bool = False) -> KnownRecord | None:
        """A cell that has the very record, with the files beside it; counts are taken over one by one instead."""
        if measure == "complexity" or not MEASURES[measure].reusable:
            return None
        found = self._whole(measure, key)
        if found is None and (anew or measure not in self._looked):
            self._look(measure)
            found = self._whole(measure, key)
        return found

    def _whole(self, measure: str, key: str) -> KnownRecord | None:
        found = self._others.get((measure, key))
        return found if found and found.folder.has(measure, key) else None

    def _look(self, measure: str) -> None:
        self._looked.add(measure)
        for path in sorted(self.root.glob(f"*/*/cells/*/{measure}.json")):
            folder = CellFolder(path.parent)
            head = folder.read_head(measure)
            if head is not None:
                self._enter(measure, folder, head)

    def _enter(self, measure: str, folder: CellFolder, head: Mapping[str, Any]) -> None:
        here = folder.path.relative_to(self.root).as_posix()
        if measure != "complexity":
            key = head["key"]
            self._others[measure, key] = KnownRecord(folder, measure, key, head.get("taken_for") or here)
            return
        for name, key in head.get("count_keys", {}).items():
            if name in head["records"]:
                origin = head.get("counted_for", {}).get(name, here)
                self._counts.setdefault(key, KnownRecord(folder, measure, key, origin))
