"""Processes that end with the one that started them: their locks would keep others from the cells. Imports no torch."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

_GRACE = 2.0  # seconds to note what was interrupted, where nobody waits for it any more


def end_with_the_parent() -> None:
    """Ends this process when its parent is gone, however that went."""
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)  # the step in hand is noted as interrupted
    time.sleep(_GRACE)
    os._exit(1)
