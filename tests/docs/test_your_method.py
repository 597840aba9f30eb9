"""The page "Add your method" does what it says: its files and its commands, as a reader would type them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "your-method.md"
FILE = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```', re.MULTILINE | re.DOTALL)
INSTALL = "pip install --editable ."
# All that the page types up to the trial on two images, and then what it does with the figures, on those of the trial.
WITH_TRIAL = "--results trial"

pytestmark = pytest.mark.full


def commands() -> list[str]:
    lines = [
        line for block in re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.M | re.S) for line in block.splitlines()
    ]
    assert lines[0] == INSTALL
    return lines[1:]


def on_the_trial(command: str) -> str | None:
    """A command of the last section on what the trial measured; None for the run that takes twenty minutes."""
    if WITH_TRIAL in command or command.startswith(("detrbench list", "detrbench validate")) or "--dry-run" in command:
        return command
    return None if command.startswith("detrbench run") else f"{command} {WITH_TRIAL}"


def test_the_page_is_true(tmp_path: Path) -> None:
    for name, text in FILE.findall(PAGE.read_text()):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    place = tmp_path / "installed"
    environment = {**os.environ, "PYTHONPATH": f"{place}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}

    def typed(*words: str) -> str:
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation")
    typed(*pip, "--target", str(place), ".")  # as `--editable`, but into a folder of this test
    assert "35 tokens kept" in typed(sys.executable, "try.py")
    said = {}
    for command in filter(None, map(on_the_trial, commands())):
        said[command] = typed(sys.executable, "-m", *command.split())
    assert "updates the tokens with the largest feature norm" in said["detrbench list parts"]
    assert "5 cells at smoke" in said["detrbench validate norm_score.yaml"]
    assert re.search(r"no_dearer.* ok|ok +no_dearer", said[f"detrbench check norm_score.yaml {WITH_TRIAL}"])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "A learned score against the norm of features" in page
    assert "norm-0.1" in page
