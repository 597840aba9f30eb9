"""The folder that a run leaves is that of earlier versions: file by file, line by line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from terminal import Terminal

# What differs from run to run.
CHANGING = {r'"(updated|created)": "[^"]*"': r'"\1": "TIME"', r'"seconds": [0-9.e-]+': '"seconds": 0'}


def lines_by_file(folder: Path) -> dict[str, list[str]]:
    """Every file with its lines, without the places in the code that tracebacks name."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            for pattern, constant in CHANGING.items():
                text = re.sub(pattern, constant, text)
            lines = [line for line in text.splitlines() if path.suffix != ".txt" or not line.startswith((" ", "Trace"))]
            found[path.relative_to(folder).as_posix()] = lines
    return found


def test_the_folder_of_a_run_stays(terminal: Terminal, recorded: Callable[[str, Any], Any]) -> None:
    def fail(cell: str, measure: str) -> None:
        if (cell, measure) == ("sparse-0.3", "memory"):
            raise ValueError("no such memory")

    terminal.before = fail
    assert terminal.type("run", "demo.yaml")[0] == 1
    assert terminal.type("run", "demo.yaml", "--scale", "paper", "--measure", "accuracy,complexity")[0] == 0
    found = lines_by_file(terminal.results)
    assert found == recorded("results_folder", found)
