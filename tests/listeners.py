"""Who is told how a run goes, and says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detrbench.run.plan import WorkItem
from detrbench.run.work import Outcome


class Silent:
    """A listener that says nothing; `on_start` may interfere."""

    def __init__(self, on_start: Any = lambda item: None) -> None:
        self.start = on_start

    def begin(self, items: Sequence[WorkItem]) -> None: ...

    def advance(self, item: WorkItem, fraction: float | None, text: str, milestone: bool = False) -> None: ...

    def end(self, outcome: Outcome) -> None: ...

    def close(self) -> None: ...
