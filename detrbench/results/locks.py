"""Locks of folders, as files: they hold on network file systems too, and free themselves when their owner is gone.

A lock is a numbered file, `.lock-<n>`, that is made where there is none of that number; of several the highest counts.
It says who holds it. A process of this machine is gone when it has ended; of any other machine, when nothing was heard
of it for a while, since it touches the file every few seconds. Whoever finds the owner gone makes the next number. That
is one step, which only one can take; no file has to be removed before it, so nobody removes the lock of somebody else.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from detrbench.files import unwritable

BEAT = 20.0  # seconds between two signs of life
SILENCE = 180.0  # seconds after which an owner on another machine counts as gone; file servers may stall for a minute
_PREFIX = ".lock-"


@dataclass(frozen=True)
class Owner:
    """A process that holds a lock.

    `host`, `boot` (of its kernel) and `space` (its numbering of processes) say where the number `process` means it;
    `started` (in ticks since the boot) tells it from a later process of that number. `job` is that of Slurm, if any.
    """

    host: str
    boot: str
    space: str
    process: int
    started: str
    job: str | None = None

    @classmethod
    def here(cls) -> Owner:
        """This process."""
        boot = _read(Path("/proc/sys/kernel/random/boot_id"))
        process = os.getpid()
        return cls(socket.gethostname(), boot, _space(), process, _started(process), _slurm_job())

    @property
    def where(self) -> str:
        """The machine, and the process or job."""
        return f"{self.host}, " + (f"job {self.job}" if self.job else f"process {self.process}")

    @property
    def is_of_this_machine(self) -> bool:
        here = Owner.here()
        return (self.host, self.boot, self.space) == (here.host, here.boot, here.space)

    @property
    def has_ended(self) -> bool:
        """Whether a process of this machine is there no more."""
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # somebody else's
            pass
        return _started(self.process) != self.started


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[bool]:
    """Holds a folder, which is made where it is missing, against others; yields False where another process holds it.

    A process that was taken for gone, because it was stopped for long, is terminated when it goes on.

    Raises:
        Unwritable: no space, no permission.
    """
    folder = folder.resolve()  # it is touched from wherever the process is by then
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ours = _take(folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    if ours is None:
        yield False
        return
    _HEART.beat_for(ours)
    try:
        yield True
    finally:
        _HEART.held.discard(ours)
        for number in range(_number(ours) + 1):  # its own last: until then nobody takes an older one for the highest
            with contextlib.suppress(OSError):
                _file(folder, number).unlink(missing_ok=True)


def owner(folder: Path) -> Owner | None:
    """Who holds a folder; None where nobody does."""
    highest = _highest(folder.resolve())
    return None if not highest or _is_free(highest) else _read_owner(highest)


def _take(folder: Path) -> Path | None:
    """Makes a lock of this process; None where another holds the folder."""
    while True:
        highest = _highest(folder)
        if highest is not None and not _is_free(highest):
            return None
        ours = _file(folder, _number(highest) + 1 if highest else 1)
        try:
            with ours.open("x", encoding="utf-8") as file:
                file.write(json.dumps(asdict(Owner.here())))
        except FileExistsError:
            return None
        if highest is None or highest.exists():
            return ours
        ours.unlink()  # it was freed, and numbers may have begun anew: another may hold a lower one


def _is_free(lock: Path) -> bool:
    """Whether the owner of a lock is gone."""
    try:
        touched = lock.stat().st_mtime
    except FileNotFoundError:
        return True
    found = _read_owner(lock)
    if found == Owner.here():  # where it could not be removed, this process holds it no more
        return lock not in _HEART.held
    if found is not None and found.is_of_this_machine:
        return found.has_ended
    return _time_there(lock.parent) - touched > SILENCE


def _time_there(folder: Path) -> float:
    """What the clock of the file server says, which may differ from ours."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".clock-") as file:
            return os.stat(file.name).st_mtime
    except OSError:  # a folder that is only read
        return time.time()


def _read_owner(lock: Path) -> Owner | None:
    """Who a lock says that holds it; None while that is being written."""
    try:
        return Owner(**json.loads(lock.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _highest(folder: Path) -> Path | None:
    """The lock of the highest number."""
    numbers = [int(number) for path in folder.glob(f"{_PREFIX}*") if (number := path.name[len(_PREFIX) :]).isdecimal()]
    return _file(folder, max(numbers)) if numbers else None


def _file(folder: Path, number: int) -> Path:
    return folder / f"{_PREFIX}{number}"


def _number(lock: Path) -> int:
    return int(lock.name[len(_PREFIX) :])


class _Heart:
    """Touches the locks that this process holds, in a thread of its own."""

    def __init__(self) -> None:
        self.held: set[Path] = set()
        self.process = 0
        self.thread = threading.Thread()

    def beat_for(self, lock: Path) -> None:
        if self.process != os.getpid():  # the locks of the process that this one was forked from are not its own
            self.held, self.process = set(), os.getpid()
        self.held.add(lock)
        if not self.thread.is_alive():
            self.thread = threading.Thread(target=self._beat, daemon=True)
            self.thread.start()

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT)
            for lock in list(self.held):
                if _highest(lock.parent) not in (lock, None) and lock in self.held:
                    os.kill(os.getpid(), signal.SIGTERM)  # another was right to take this process for gone
                with contextlib.suppress(OSError):  # a server that does not answer now may do so at the next beat
                    os.utime(lock)


_HEART = _Heart()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:  # not Linux
        return ""


def _space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(process: int) -> str:
    """When a process started, in ticks since the boot; empty where nobody says, and of one that has ended."""
    fields = _read(Path(f"/proc/{process}/stat")).rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] != "Z" else ""


def _slurm_job() -> str | None:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID")
