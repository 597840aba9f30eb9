"""What git keeps: sources, data and small images, never what a command has made."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LARGEST = 1_000_000  # bytes
IMAGES = (".png", ".jpg")


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Files as they are here, links and deleted ones left out."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout, or no git")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:  # a checkout of another user, for one
        pytest.skip(listed.stderr.strip())
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def is_text(content: bytes) -> bool:
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


def test_no_file_is_large(tracked: list[Path]) -> None:
    assert len(tracked) > 100
    assert [str(path) for path in tracked if path.stat().st_size > LARGEST] == []


def test_only_images_are_binary(tracked: list[Path]) -> None:
    assert not is_text(b"\x7fELF\2\1\1\0")
    assert [str(path) for path in tracked if path.suffix not in IMAGES and not is_text(path.read_bytes())] == []
