"""Slurm's queue, and what was submitted to it. Imports no torch.

`squeue` alone is asked, not `sacct`, which needs a database that small clusters lack: of a job that is listed no more,
the file that it told of itself says how it ended.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from detrbench.files import write_atomic
from detrbench.results.folder import CellFolder, read_json

NEVER = "DependencyNeverSatisfied"  # why a job waits in vain
PENDING = "PENDING"


@dataclass(frozen=True)
class Listed:
    """A job as `squeue` lists it: its state, its nodes, and why it waits."""

    state: str
    nodes: str
    reason: str


@dataclass(frozen=True)
class Note:
    """A job that was submitted: its number, its items with their keys, and the file that it tells of them in."""

    path: Path
    job: str
    items: dict[str, str]

    def write(self) -> None:
        """Raises Unwritable."""
        content = {name: value for name, value in asdict(self).items() if name != "path"}
        write_atomic(self.path, json.dumps(content, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Note | None:
        """The note that is kept there, if there is one."""
        found = read_json(path, None) or {}
        job, items = found.get("job"), found.get("items")
        return cls(path, job, items) if isinstance(job, str) and isinstance(items, dict) else None


def told_of(note: Path) -> Path:
    """The file that a job with such a note tells of its items in."""
    return note.with_suffix(".jsonl")


def folder(cell: CellFolder) -> Path:
    """Where the jobs of a suite leave what they say: beside its cells, wherever these are."""
    return cell.path.parents[1].resolve() / "jobs"


def notes(results: Path) -> Iterator[Note]:
    """Every job that was submitted last for its cell."""
    for path in sorted(results.glob("*/*/jobs/*.json")):
        note = Note.read(path)
        if note is not None:
            yield note


def name(results: Path) -> str:
    """What the jobs of a results folder are called."""
    return f"detrbench-{hashlib.sha256(str(results.resolve()).encode()).hexdigest()[:6]}"


def listed(name: str) -> dict[str, Listed] | None:
    """The user's jobs of that name by their number; None where Slurm does not answer.

    Raises:
        OSError: there is no `squeue`.
    """
    command = ["squeue", "--noheader", "--array", "--user", getpass.getuser(), "--name", name, "--format=%i|%T|%N|%r"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        return None
    lines = (line.strip().split("|", 3) for line in done.stdout.splitlines() if line.count("|") >= 3)
    return {job: Listed(state, nodes, reason) for job, state, nodes, reason in lines}


def cancel(jobs: Iterable[str]) -> None:
    """Takes jobs off the queue."""
    subprocess.run(["scancel", *jobs], capture_output=True, timeout=60, check=False)
