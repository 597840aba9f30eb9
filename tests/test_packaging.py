"""A package is never built without its models: setup.py looks for the links first."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("models", "csrc", "suites", "reports")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What setup.py reads of this checkout, its links in place."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "detrbench").mkdir()
    for name in FOLDERS:
        (tmp_path / name).mkdir()
        (tmp_path / "detrbench" / name).symlink_to(f"../{name}")
    return tmp_path


def name_of(checkout: Path) -> subprocess.CompletedProcess[str]:
    """The project's name as setup.py says it: every build begins like this."""
    return subprocess.run(
        [sys.executable, "setup.py", "--name"], cwd=checkout, capture_output=True, text=True, check=False
    )


def test_with_its_links_it_builds(checkout: Path) -> None:
    said = name_of(checkout)
    assert (said.returncode, said.stdout.split()[-1:]) == (0, ["detrbench"]), said.stderr


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("as_text", [True, False], ids=["a text file for a link", "no link"])
def test_without_a_link_it_says_what_to_do(checkout: Path, name: str, as_text: bool) -> None:
    (checkout / "detrbench" / name).unlink()
    if as_text:  # what git writes with core.symlinks=false
        (checkout / "detrbench" / name).write_text(f"../{name}")
    said = name_of(checkout)
    assert said.returncode == 1
    assert said.stdout == ""
    (sentence,) = said.stderr.splitlines()
    assert sentence.startswith(f"detrbench cannot be built: detrbench/{name} should be a link")
    assert "git clone -c core.symlinks=true" in sentence


def test_every_link_is_guarded() -> None:
    links = {path.name for path in (ROOT / "detrbench").iterdir() if path.is_symlink()}
    assert links <= set(FOLDERS), "a link that setup.py does not look for"
    assert all((ROOT / "detrbench" / name).is_dir() for name in FOLDERS)
