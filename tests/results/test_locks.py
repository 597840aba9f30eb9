"""Locks: one holder at a time, here and elsewhere, and none of an owner that is gone."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from detrbench.results import locks
from detrbench.results.locks import Owner

HOLD = """
import sys, time
from pathlib import Path
from detrbench.results import locks
with locks.lock(Path(sys.argv[1])) as held:
    print(held, flush=True)
    time.sleep(60)
"""


@contextmanager
def another_process(folder: Path) -> Iterator[Any]:
    """A process that holds the folder."""
    holder: Any = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline().strip() == "True"
        yield holder
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def can_be_held(folder: Path) -> bool:
    with locks.lock(folder) as held:
        return held


def left_by(folder: Path, owner: Owner, seconds_ago: float = 0.0, number: int = 1) -> Path:
    """A lock of another process, which it touched last so many seconds ago."""
    folder.mkdir(exist_ok=True)
    lock = folder / f".lock-{number}"
    lock.write_text(json.dumps(asdict(owner)))
    os.utime(lock, (time.time() - seconds_ago,) * 2)
    return lock


def test_a_lock_keeps_others_out_until_its_process_is_dead(tmp_path: Path) -> None:
    with another_process(tmp_path / "cell") as holder:
        assert not can_be_held(tmp_path / "cell")
        owner = locks.owner(tmp_path / "cell")
        assert owner is not None
        assert (owner.host, owner.process) == (Owner.here().host, holder.pid)
        holder.kill()  # kill -9: nothing can be tidied, and until somebody asks it is a zombie
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
        assert can_be_held(tmp_path / "cell")
    assert can_be_held(tmp_path / "cell")
    assert locks.owner(tmp_path / "cell") is None
    assert list((tmp_path / "cell").iterdir()) == []


def test_a_number_that_another_process_has_now_is_not_the_owner(tmp_path: Path) -> None:
    left_by(tmp_path, replace(Owner.here(), process=os.getppid(), started="1"))
    assert can_be_held(tmp_path)


@pytest.mark.parametrize("elsewhere", [{"host": "other"}, {"boot": "earlier"}, {"space": "pid:[1]"}], ids=str)
def test_of_another_machine_only_silence_tells(tmp_path: Path, elsewhere: dict[str, str]) -> None:
    """Its number means nothing here, whether such a process is here or not."""
    owner = replace(Owner.here(), process=2**22 + 1, **elsewhere)
    left_by(tmp_path, owner, seconds_ago=locks.SILENCE - 30)
    assert not can_be_held(tmp_path)
    left_by(tmp_path, owner, seconds_ago=locks.SILENCE + 30)
    assert can_be_held(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_clock_is_that_of_the_file_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left_by(tmp_path, replace(Owner.here(), host="other"))
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert not can_be_held(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1}'])
def test_a_lock_that_says_nothing_yet_holds(tmp_path: Path, content: str) -> None:
    lock = tmp_path / ".lock-1"
    lock.write_text(content)
    assert not can_be_held(tmp_path)
    os.utime(lock, (1e9, 1e9))
    assert can_be_held(tmp_path)


def test_of_many_who_find_the_owner_gone_one_gets_it(tmp_path: Path) -> None:
    left_by(tmp_path, replace(Owner.here(), host="other"), seconds_ago=1e6)
    fork = multiprocessing.get_context("fork")
    start, done, told = fork.Event(), fork.Event(), fork.SimpleQueue()

    def take() -> None:
        start.wait()
        lock = locks._take(tmp_path)
        told.put(lock.name if lock else "")
        done.wait()  # who has it keeps it

    takers = [fork.Process(target=take) for _ in range(8)]
    for taker in takers:
        taker.start()
    start.set()
    got = [told.get() for _ in takers]
    done.set()
    for taker in takers:
        taker.join()
    assert sorted(got) == [""] * 7 + [".lock-2"]


def test_who_was_overtaken_while_it_looked_looks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner is gone; before we act, another takes over, ends, and a third begins numbers anew."""
    stale = left_by(tmp_path, replace(Owner.here(), host="other"), seconds_ago=1e6, number=3)
    is_free = locks._is_free

    def slow(lock: Path) -> bool:
        found = is_free(lock)
        if lock == stale:
            stale.unlink()
            left_by(tmp_path, replace(Owner.here(), process=os.getppid(), started=locks._started(os.getppid())))
        return found

    monkeypatch.setattr(locks, "_is_free", slow)
    assert not can_be_held(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock-1"]


def test_who_holds_it_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT", 0.01)
    monkeypatch.setattr(locks, "_HEART", locks._Heart())
    with locks.lock(tmp_path):
        os.utime(tmp_path / ".lock-1", (1e9, 1e9))
        until = time.monotonic() + 10
        while (tmp_path / ".lock-1").stat().st_mtime == 1e9 and time.monotonic() < until:
            time.sleep(0.01)
        assert (tmp_path / ".lock-1").stat().st_mtime > 1e9


def test_who_was_taken_for_gone_ends(tmp_path: Path) -> None:
    """One that was stopped for long, as Slurm suspends jobs, does not go on beside its successor."""
    quick = HOLD.replace("with locks", "locks.BEAT = 0.05\nwith locks")
    holder: Any = subprocess.Popen([sys.executable, "-c", quick, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline().strip() == "True"
    left_by(tmp_path, replace(Owner.here(), host="other"), number=2)
    assert holder.wait(20) == -signal.SIGTERM
    holder.stdout.close()
    assert not can_be_held(tmp_path)


def test_one_process_holds_a_folder_once(tmp_path: Path) -> None:
    with locks.lock(tmp_path) as first, locks.lock(tmp_path) as second:
        assert (first, second) == (True, False)
    assert can_be_held(tmp_path)


def test_what_this_process_could_not_remove_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        assert can_be_held(tmp_path)
    assert (tmp_path / ".lock-1").exists()
    assert can_be_held(tmp_path)
