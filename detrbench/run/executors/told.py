"""What a job on another machine tells of its items: a file of JSON lines, which whoever submitted it reads.

`what` says what a line tells: `begin` (where), `start`, `advance` and `end` of an item, and `left`, the last line of a
job that came to an end by itself, whose `why` is `finished`, `interrupted`, or what went wrong. A job that was killed
leaves no such line; one that was requeued begins again. Imports no torch.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detrbench.run.plan import WorkItem

FINISHED, INTERRUPTED = "finished", "interrupted"
_EVERY = 10.0  # seconds between two lines about the progress of an item


class Teller:
    """A listener that writes such a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.last = path, 0.0

    def begin(self, items: Sequence[WorkItem]) -> None:
        self._write("begin", host=socket.gethostname())

    def start(self, item: WorkItem) -> None:
        self._write("start", item=item.name)
        self.last = time.monotonic()

    def advance(self, item: WorkItem, fraction: float | None, text: str, milestone: bool = False) -> None:
        if milestone or time.monotonic() - self.last >= _EVERY:
            self._write("advance", item=item.name, fraction=fraction, text=text, milestone=milestone)
            self.last = time.monotonic()

    def end(self, outcome: Any) -> None:
        ending = {"state": outcome.state, "why": outcome.why, "seconds": outcome.seconds, "given_up": outcome.given_up}
        self._write("end", item=outcome.item.name, **ending)

    def close(self) -> None:
        """Every line is on its way already."""

    def leave(self, why: str) -> None:
        """The last line."""
        self._write("left", why=why)

    def _write(self, what: str, **details: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:  # a file server passes on what has been closed
            file.write(json.dumps({"what": what, **details}) + "\n")


class Told:
    """Reads such a file as it grows."""

    def __init__(self, path: Path) -> None:
        self.path, self.read = path, 0

    def news(self) -> list[dict[str, Any]]:
        """The lines that were not there before."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.read)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]  # of a line that is being written, the rest comes later
        self.read += len(whole)
        return [json.loads(line) for line in whole.splitlines()]
