"""A step that takes too long is given up; the others go on. Imports no torch."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from detrbench.errors import Findings

MINUTES = 60.0  # of one timed cell, where nobody says otherwise


class Expired(Findings):
    """A step took longer than it may."""


class _Alarm(BaseException):
    """Ends a step wherever it is; no handler of mere errors on its way may swallow it."""


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Gives the block so many seconds; None or 0: as many as it takes.

    Python code is stopped where it is; a call into compiled code first comes back. Only the main thread can be stopped.

    Raises:
        Expired: the block took longer.
    """
    if not seconds or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise _Alarm

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _Alarm:
        raise expired(seconds) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def expired(seconds: float, why: str = "took longer") -> Expired:
    """The error of a step that takes longer than `seconds`."""
    return Expired(f"{why} than its {seconds / 60:g} minutes", hint="give it more with --time-limit MINUTES, 0 for all")
