"""Files are written whole or not at all, and nothing but a file is ever replaced."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from detrbench.files import Unwritable, is_special, replacing, write_atomic


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "report.html", tmp_path / "latest.html"
    target.write_text("old")
    link.symlink_to(target)
    write_atomic(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_link_to_nothing_makes_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("report.html")
    write_atomic(tmp_path / "link", "new")
    assert (tmp_path / "report.html").read_text() == "new"


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_atomic(pipe, "report")
    reader.join(10)
    assert read == ["report"]
    assert pipe.is_fifo()


def test_a_device_stays_a_device() -> None:
    write_atomic(Path("/dev/null"), "report")
    assert is_special(Path("/dev/null"))


def test_a_folder_is_no_place_for_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(Unwritable):
        write_atomic(tmp_path / "folder", "text")
    assert (tmp_path / "folder" / "inside").is_dir()


def test_a_block_that_fails_leaves_what_was(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(Unwritable), replacing(path) as temporary:
        temporary.write_text((tmp_path / "gone").read_text())
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("a.json", "old")]


def test_names_may_be_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    name = "n" * 250
    write_atomic(tmp_path / name, "text")
    assert (tmp_path / name).read_text() == "text"
