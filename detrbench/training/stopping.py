"""Ending a training on request: SIGTERM, or SIGUSR2 as Slurm sends it before the time is up."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


class Stop:
    """Whether this process was asked to end."""

    asked: signal.Signals | None = None

    def note(self, number: int, frame: object) -> None:
        """Handles a signal: the step in hand is finished first."""
        self.asked = signal.Signals(number)


@contextlib.contextmanager
def heeding() -> Iterator[Stop]:
    """Notes signals inside the block, instead of what else would be done about them."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.note) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stop.asked is not None:  # now the others may do about it what they do
        os.kill(os.getpid(), stop.asked)
