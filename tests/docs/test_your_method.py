"""The page "Add your method" does what it says: its files and its commands, as a reader would type them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "your-method.md"
FILE = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```', re.MULTILINE | re.DOTALL)
INSTALL = "pip install --editable ."
# All that the page types up to the trial on two images, and then what it does with the figures, on those of the trial.
WITH_TRIAL = "--results trial"

Type = Callable[[str], str]


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


@pytest.fixture
def typed(tmp_path: Path) -> Type:
    """Types a line in the folder of the page's files and returns what it prints; its environment is a clean one.

    What detrbench builds on is seen through a path file, as in `.ci/run`; so nothing is downloaded. The package of the
    page is where pip installs it, and nowhere else.
    """
    for name, text in FILE.findall(PAGE.read_text()):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    place = tmp_path / "venv"
    venv.create(place, symlinks=True)
    paths = {name: Path(path) for name, path in sysconfig.get_paths(vars={"base": str(place)}).items()}
    (paths["purelib"] / "tested.pth").write_text(f"{ROOT}\n{sysconfig.get_paths()['purelib']}\n")
    first = {"python": "python", "pip": "python -m pip", "detrbench": "python -m detrbench"}
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_QUIET": "1"}
    environment = {**clean, **offline, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}

    def type_(line: str) -> str:
        command, *words = shlex.split(line)
        python, *before = first[command].split()
        whole = (str(paths["scripts"] / python), *before, *words)
        done = subprocess.run(whole, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return type_


def test_the_package_is_listed_once_it_is_installed(typed: Type) -> None:
    assert "feature norm" not in typed("detrbench list parts")
    typed(INSTALL)
    assert "updates the tokens with the largest feature norm" in typed("detrbench list parts")


@pytest.mark.full
def test_the_page_is_true(typed: Type, tmp_path: Path) -> None:
    typed(INSTALL)
    assert "35 tokens kept" in typed("python try.py")
    said = {command: typed(command) for command in filter(None, map(on_the_trial, commands()))}
    assert "updates the tokens with the largest feature norm" in said["detrbench list parts"]
    assert "5 cells at smoke" in said["detrbench validate norm_score.yaml"]
    assert re.search(r"no_dearer.* ok|ok +no_dearer", said[f"detrbench check norm_score.yaml {WITH_TRIAL}"])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "A learned score against the norm of features" in page
    assert "norm-0.1" in page
