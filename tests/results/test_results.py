"""The results folder: whole files or none, foreign files ignored, locks, the table of everything."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import pytest

from detrbench.files import Unwritable, write_atomic
from detrbench.results.folder import CellFolder
from detrbench.results.records import Estimate
from detrbench.results.store import ResultsStore


def make_cell(root: Path, name: str = "a-00000000", id_: str = "a", index: int = 0) -> CellFolder:
    folder = ResultsStore(root).folder("demo", "smoke", name)
    folder.write_cell({"id": id_, "suite": "demo", "scale": "smoke", "index": index, "model": "m"})
    return folder


def write(folder: CellFolder, measure: str = "complexity", key: str = "k") -> None:
    folder.write_envelope(
        measure, key, {"common": {"gflops": 3.5, "ap": Estimate(1.0, "points", 2)}}, {"torch": "x"}, 1
    )
    folder.set_state("a", measure, "done")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write(make_cell(tmp_path))
    store = ResultsStore(tmp_path)
    assert store.suites() == [("demo", "smoke")]
    (result,) = store.cells("demo", "smoke")
    assert result.records["complexity"]["common"]["gflops"] == 3.5
    assert result.envelopes["complexity"]["environment"] == {"torch": "x"}
    assert result.state("complexity") == ("done", None)
    assert result.state("latency") == ("not_measured", "not run yet")


def test_cells_come_in_the_suites_order_and_the_last_touched_settings_count(tmp_path: Path) -> None:
    make_cell(tmp_path, "b-1", "b", 0).set_state("b", "latency", "failed", "why")
    make_cell(tmp_path, "a-2", "a", 1).set_state("a", "latency", "done")
    make_cell(tmp_path, "a-1", "a", 1).set_state("a", "latency", "failed", "later")
    found = ResultsStore(tmp_path).cells("demo", "smoke")
    assert [result.folder.name for result in found] == ["b-1", "a-1"]


def test_what_the_last_run_was_at_counts_whatever_the_clock_says(tmp_path: Path) -> None:
    store = ResultsStore(tmp_path)
    for name, updated in (("a-1", "2030"), ("a-2", "2020"), ("b-1", "2020"), ("b-2", "2030")):
        make_cell(tmp_path, name, name[0]).status.write_text(json.dumps({"updated": updated, "measures": {}}))
    store.choose("demo", "smoke", {"a": "a-2"})
    assert [result.folder.name for result in store.cells("demo", "smoke")] == ["a-2", "b-2"]
    store.choose("demo", "smoke", {"b": "b-1"})
    assert [result.folder.name for result in store.cells("demo", "smoke")] == ["a-2", "b-1"]
    store.choose("demo", "smoke", {"b": "gone"})
    (tmp_path / "demo" / "smoke" / "cells.json").write_text("[")
    assert [result.folder.name for result in store.cells("demo", "smoke")] == ["a-1", "b-2"]


def test_a_pipe_among_the_records_is_ignored(tmp_path: Path) -> None:
    folder = make_cell(tmp_path)
    os.mkfifo(folder.record("complexity"))
    said: list[str] = []
    (result,) = ResultsStore(tmp_path, said.append).cells("demo", "smoke")
    assert result.records == {}
    assert said == [f"{folder.record('complexity')}: ignored: not a regular file"]


def test_a_record_is_read_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_cell(tmp_path)
    write(folder, key="one")
    read: list[Path] = []
    before = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, **how: read.append(path) or before(path, **how))
    assert [CellFolder(folder.path).has("complexity", key) for key in ("one", "two", "one")] == [True, False, True]
    assert read == [folder.record("complexity")]
    monkeypatch.undo()
    write(folder, key="two")  # of the same length
    assert CellFolder(folder.path).has("complexity", "two")


def test_the_frame_has_a_row_for_each_protocol(tmp_path: Path) -> None:
    folder = make_cell(tmp_path)
    write(folder)
    folder.set_state("a", "accuracy", "not_measured", "no data")
    frame = ResultsStore(tmp_path).frame()
    assert list(frame["measure"]) == ["complexity", "accuracy"]
    assert frame["gflops"][0] == 3.5
    assert frame["ap.value"][0] == 1.0
    assert frame["why"][1] == "no data"
    assert ResultsStore(tmp_path / "none").frame().empty


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        '{"schema": 1',
        "[]",
        "null",
        '{"schema": 99, "key": "k", "measure": "complexity", "records": {}}',
        "\x00",
    ],
)
def test_a_broken_record_is_reported_with_its_path_and_ignored(tmp_path: Path, content: str) -> None:
    folder = make_cell(tmp_path)
    write(folder)
    folder.record("complexity").write_text(content)
    said: list[str] = []
    (result,) = ResultsStore(tmp_path, said.append).cells("demo", "smoke")
    assert result.records == {}
    assert len(said) == 1
    assert said[0].startswith(str(folder.record("complexity")))


@pytest.mark.parametrize("content", ["", "- a", "id: [", "id: 3"])
def test_a_folder_without_a_readable_cell_is_ignored(tmp_path: Path, content: str) -> None:
    folder = make_cell(tmp_path)
    folder.cell.write_text(content)
    (folder.path.parent / "stray").mkdir()
    (folder.path.parent / "stray.txt").write_text("x")
    assert ResultsStore(tmp_path).cells("demo", "smoke") == []


def test_a_broken_status_counts_as_none(tmp_path: Path) -> None:
    folder = make_cell(tmp_path)
    folder.status.write_text('{"measures": 3')
    assert folder.read_status()["measures"] == {}
    folder.set_state("a", "latency", "done")
    assert folder.read_status()["measures"]["latency"]["state"] == "done"


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x.json"
    write_atomic(target, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unwritable, match="no space left") as caught:
        write_atomic(target, "new")
    assert caught.value.exit_code == 4
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_in_the_way_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("I am a file")
    with pytest.raises(Unwritable, match="cannot be written"):
        write_atomic(tmp_path / "results" / "a" / "b.json", "x")
    with pytest.raises(Unwritable, match="cannot be written"), CellFolder(tmp_path / "results" / "a").lock():
        pass


def test_two_writers_never_mix(tmp_path: Path) -> None:
    target = tmp_path / "x.json"
    texts = [json.dumps([letter] * 20_000) for letter in "ab"]

    def work(text: str) -> None:
        for _ in range(20):
            write_atomic(target, text)

    threads = [threading.Thread(target=work, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if target.exists():
            assert target.read_text() in texts
    assert list(tmp_path.iterdir()) == [target]
