"""The process: `python FOLDER READ WRITE`, where FOLDER is the one that this file lies in, and the numbers its pipe's.

Nobody else knows that pipe: whatever is printed, by Python or a library, goes where standard output goes.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import queue
import sys
import threading
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).resolve().parent


def _import_package() -> None:
    """This folder as a package of its own name, whose modules hide none of the detector's."""
    sys.path[:] = [each for each in sys.path if Path(each or ".").resolve() != _FOLDER]
    spec = importlib.util.spec_from_file_location(
        "detrbench_worker", _FOLDER / "__init__.py", submodule_search_locations=[str(_FOLDER)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = package
    spec.loader.exec_module(package)


def main(read: int, write: int) -> None:
    """Answers one question after the other; ends when the asker does, whatever is going on."""
    _import_package()
    answers = importlib.import_module("detrbench_worker.answers")
    messages = importlib.import_module("detrbench_worker.messages")
    asked, answered = os.fdopen(read, "rb"), os.fdopen(write, "wb")
    waiting: queue.Queue[Any] = queue.Queue()

    def listen() -> None:
        exactly = messages.reader(asked)
        try:
            while True:
                waiting.put(messages.read(exactly))
        except EOFError:
            os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    given = answers.Answers()
    while True:
        messages.write(answered, given.to(*waiting.get()))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
