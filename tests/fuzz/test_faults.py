"""Faults by name, at every place where they can happen: nothing lost, nothing half, one line, and the rerun goes on."""

from __future__ import annotations

import builtins
import errno
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from world import World

from detrbench.results import locks
from detrbench.results.folder import CellFolder

FULL, READ_ONLY = OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EROFS, "Read-only file system")
LOST = PermissionError(errno.EACCES, "Permission denied")
QUOTA, BROKEN = OSError(errno.EDQUOT, "Disk quota exceeded"), OSError(errno.EIO, "Input/output error")


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


@dataclass
class Disk:
    """Counts what is written below a folder; from the write of number `good` on, each raises the fault."""

    folder: Path
    good: int | None = None
    fault: OSError = FULL
    writes: list[str] = field(default_factory=list)

    def write(self, what: str, path: Any) -> None:
        place = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
        if not place.startswith(str(self.folder)) and (place.startswith("/") or not place):
            return
        self.writes.append(f"{what} {Path(place).name}")
        if self.good is not None and len(self.writes) > self.good:
            raise OSError(self.fault.errno, self.fault.strerror, place)

    def watched(self, patch: pytest.MonkeyPatch) -> None:
        """Everything by which a run changes a file system passes here."""
        opened, replace, mkdir, unlink = builtins.open, os.replace, os.mkdir, os.unlink
        io_open = __import__("io").open

        def watched_open(of: Callable[..., Any]) -> Callable[..., Any]:
            def call(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
                if set(mode) & set("wax+") and not Path(file).name.startswith(".lock-"):
                    self.write("open", file)
                return of(file, mode, *rest, **named)

            return call

        def watched(what: str, of: Callable[..., Any]) -> Callable[..., Any]:
            def call(path: Any, *rest: Any, **named: Any) -> Any:
                self.write(what, rest[0] if what == "replace" else path)
                return of(path, *rest, **named)

            return call

        patch.setattr(builtins, "open", watched_open(opened))
        patch.setattr("io.open", watched_open(io_open))
        patch.setattr(os, "replace", watched("replace", replace))
        patch.setattr(os, "mkdir", watched("mkdir", mkdir))
        if not self.makes_room:
            patch.setattr(os, "unlink", watched("unlink", unlink))

    @property
    def makes_room(self) -> bool:
        """Whether files can still be removed."""
        return self.fault in (FULL, QUOTA)


def written(world: World) -> int:
    """How many times a whole run writes into the results folder."""
    disk = Disk(world.folder / "results")
    with pytest.MonkeyPatch.context() as patch:
        disk.watched(patch)
        assert world.run()[0] == 0
    shutil.rmtree(world.folder / "results")
    return len(disk.writes)


def content(world: World) -> dict[str, dict[str, Any]]:
    """Key and figures of every record."""
    return {
        f"{path.parent.name} {measure}": (envelope["key"], envelope["records"])
        for path in world.cells.glob("*/*.json")
        for measure in [path.stem]
        if measure != "status" and (envelope := CellFolder(path.parent).read_envelope(measure))
    }


@pytest.mark.parametrize(
    ("fault", "step"),
    [
        pytest.param(FULL, 11, id="full, some writes"),
        pytest.param(FULL, 1, id="full, each write", marks=pytest.mark.full),
        pytest.param(QUOTA, 3, id="quota", marks=pytest.mark.full),
        pytest.param(READ_ONLY, 3, id="read-only", marks=pytest.mark.full),
        pytest.param(LOST, 3, id="lost permission", marks=pytest.mark.full),
        pytest.param(BROKEN, 3, id="broken", marks=pytest.mark.full),
    ],
)
def test_a_write_that_fails_costs_itself(world: World, fault: OSError, step: int) -> None:
    count = written(world)
    assert world.run()[0] == 0
    whole = content(world)
    assert len(whole) == 8
    for good in range(0, count, step):
        shutil.rmtree(world.folder / "results")
        disk = Disk(world.folder / "results", good, fault)
        with pytest.MonkeyPatch.context() as patch:
            disk.watched(patch)
            code, before, err = world.run()
        assert code == 4, f"write {good}: {disk.writes[good]}: exit code {code}: {err}"
        assert [line for line in err.splitlines() if line.startswith("error: ")] == [err.splitlines()[-2]], err
        halves = list((world.folder / "results").rglob(".*.[0-9a-f]*"))
        assert not (disk.makes_room and halves), f"half a file is left: {halves}"
        kept = content(world)
        assert kept.items() <= whole.items()
        code, after, err = world.run()
        assert code == 0, err
        assert content(world) == whole
        again = set(before) & set(after)
        assert len(again) <= 1, f"write {good}: taken twice: {again}"


def test_a_real_disk_that_is_full(world: World) -> None:
    """The same with a file system of 1 MiB, where this machine lets a test make one."""
    target = world.folder / "results"
    target.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(target)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no file system can be mounted: {made.stderr.decode().strip()}")
    try:
        filler = target / "filler"
        with pytest.raises(OSError, match="No space"):
            filler.write_bytes(b"x" * 2_000_000)
        code, _, err = world.run()
        assert (code, "no space left while writing" in err) == (4, True), err
        filler.unlink()
        assert world.run()[0] == 0
    finally:
        subprocess.run(["umount", "-l", str(target)], check=True)


@dataclass
class Journal:
    """What is on a disk for good at each moment: files by `fsync`, names by the `fsync` of their folder."""

    folder: Path
    synced: set[int] = field(default_factory=set)  # inodes
    renamed: list[Path] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    pending: Path | None = None  # a name whose folder is still to be synced

    def watched(self, patch: pytest.MonkeyPatch) -> None:
        fsync, replace = os.fsync, os.replace

        def sync(handle: Any) -> None:
            number = handle if isinstance(handle, int) else handle.fileno()
            self.synced.add(os.fstat(number).st_ino)
            if self.pending and os.fstat(number).st_ino == self.pending.parent.stat().st_ino:
                self.pending = None
            fsync(number)

        def rename(source: Any, target: Any, **named: Any) -> None:
            path = Path(target).absolute()
            if path.is_relative_to(self.folder):
                if self.pending is not None:
                    self.wrong.append(f"{path.name} is written before the name of {self.pending.name} is kept")
                if os.stat(source).st_ino not in self.synced:
                    self.wrong.append(f"{path.name} has its name before its content is kept")
                self.renamed.append(path)
                self.pending = path
            replace(source, target, **named)

        patch.setattr(os, "fsync", sync)
        patch.setattr(os, "replace", rename)


def test_a_power_cut_finds_no_name_without_content(world: World) -> None:
    """Each file is synced before it gets its name, its folder before the next file: a record follows what it names."""
    journal = Journal(world.folder / "results")
    with pytest.MonkeyPatch.context() as patch:
        journal.watched(patch)
        assert world.run()[0] == 0
    assert journal.wrong == []
    assert journal.pending is None
    names = [path.name for path in journal.renamed]
    assert {"suite.yaml", "cell.yaml", "status.json", "training.json", "accuracy.json"} <= set(names)


def test_the_lock_of_a_dead_host_keeps_nobody_out(world: World) -> None:
    """A process that is gone leaves its lock behind, here or on another host."""
    assert world.run("-k", "own")[0] == 0
    for path in world.cells.glob("*"):
        lock = path / ".lock-7"
        lock.write_text(json.dumps({**asdict(locks.Owner.here()), "host": "elsewhere"}))
        os.utime(lock, (1e9, 1e9))
    child = world.apart(killed_at=0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    code, taken, err = world.run()
    assert (code, len(taken)) == (0, 6), err


def of_the_processor() -> None:
    torch.empty(2**46)


def of_python() -> None:
    raise MemoryError("of 3 GiB")


def of_the_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


@pytest.mark.parametrize("lacking", [of_the_processor, of_python, of_the_gpu])
def test_out_of_memory_in_one_row_costs_that_row(world: World, lacking: Callable[[], None]) -> None:
    def before(row: str, measure: str) -> None:
        if (row, measure) == ("row-0.1", "training"):
            lacking()

    world.before = before
    code, taken, err = world.run()
    assert code == 1
    assert "row-0.1 training: out of memory: " in err
    assert ("row-0.2", "accuracy") in taken
    world.before = lambda row, measure: None
    assert world.run()[1] == [("row-0.1", "training"), ("row-0.1", "accuracy")]
