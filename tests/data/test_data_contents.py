"""The digest of a folder's files: another pixel gives another, another place or time does not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from detrbench.data import contents


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DETRBENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "images"
    folder.mkdir()
    for name in "ab":
        (folder / name).write_bytes(name.encode() * 100)
    return folder


def keep_time(file: Path, content: bytes) -> None:
    """Other bytes, under the same size and time of change."""
    before = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_other_bytes_give_another_digest(images: Path) -> None:
    first = contents.digest(images, ["a", "b"])
    assert contents.digest(images, ["a", "b"]) == first
    assert contents.digest(images, ["b", "a"]) != first
    (images / "b").write_bytes(b"c" * 100)
    assert contents.digest(images, ["a", "b"]) != first


def test_a_copy_elsewhere_has_the_same(images: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(images, tmp_path / "copy", copy_function=shutil.copyfile)
    assert contents.digest(copy, ["a", "b"]) == contents.digest(images, ["a", "b"])


def test_files_are_read_once_until_they_are_to_be_forgotten(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(contents, "sha256", lambda file: read.append(file.name) or file.read_bytes().hex())
    first = contents.digest(images, ["a", "b"])
    keep_time(images / "b", b"c" * 100)
    assert contents.digest(images, ["a", "b"]) == first
    assert sorted(read) == ["a", "b"]
    contents.forget(images.parent)
    assert contents.digest(images, ["a", "b"]) != first
    assert sorted(read) == ["a", "a", "b", "b"]


def test_a_missing_file_counts(images: Path) -> None:
    first = contents.digest(images, ["a", "b"])
    (images / "b").unlink()
    assert contents.digest(images, ["a", "b"]) not in (first, contents.digest(images, ["a"]))


def test_a_memory_that_is_broken_or_cannot_be_written_costs_time_only(images: Path, tmp_path: Path) -> None:
    first = contents.digest(images, ["a"])
    for memo in (tmp_path / "cache" / "contents").iterdir():
        memo.write_text("[")
    assert contents.digest(images, ["a"]) == first
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("a file")
    assert contents.digest(images, ["a"]) == first
