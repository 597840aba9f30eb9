"""What runs where: cells of a results folder that somebody is at, and what waits in Slurm's queue. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from detrbench import renamed
from detrbench.measures import MEASURES
from detrbench.results import locks
from detrbench.results.folder import CellFolder, Warn, read_lines, tell
from detrbench.results.store import CellResult
from detrbench.run.executors import queue
from detrbench.run.executors.queue import Listed, Note


@dataclass(frozen=True)
class Activity:
    """One measure of a cell, or what one job is to do.

    Attributes:
        suite, scale: which they are of.
        cell: its id; of a job the name of its note.
        measure: which one; of a job all of them.
        state: `running`, `queued`, or `stopped` (somebody began, and nobody is at it any more).
        where: machine and process, or the number of Slurm's job.
        about: how far it is, or why it waits.
    """

    suite: str
    scale: str
    cell: str
    measure: str
    state: str
    where: str
    about: str


def counts(trainings: Iterable[CellResult]) -> Counter[str]:
    """How many measures are in which state."""
    return Counter(
        result.state(measure)[0] for result in trainings for measure in result.status["measures"] if measure in MEASURES
    )


def activities(trainings: Iterable[CellResult], results: Path, warn: Warn = None) -> list[Activity]:
    """What runs, or was left off, among the results of a folder; behind it, what of the folder waits."""
    found = [activity for result in trainings for activity in _at_work(result)]
    return found + list(_queued(results, warn))


def _at_work(result: CellResult) -> Iterator[Activity]:
    begun = [measure for measure in result.status["measures"] if result.state(measure)[0] == "running"]
    if not begun:
        return
    owner = locks.owner(result.folder)
    state, where = "stopped", "nobody is at it: run it again"
    if owner is not None:
        state, where = "running", owner.where
    for measure in begun:
        about = _progress(CellFolder(result.folder)) if measure == "training" else ""
        yield Activity(result.suite, result.scale, result.id, measure, state, where, about)


def _progress(folder: CellFolder) -> str:
    """How far a training is."""
    epochs = [line["epoch"] for line in read_lines(folder.training_log) if isinstance(line.get("epoch"), float | int)]
    return f"{epochs[-1]:.1f} epochs" if epochs else ""


def _queued(results: Path, warn: Warn) -> Iterator[Activity]:
    """The jobs of a results folder that wait in the queue."""
    notes = list(queue.notes(results))
    if not notes:
        return
    try:
        listed = queue.listed(queue.name(results))
    except OSError:
        listed = None
    if listed is None:
        tell(warn, "Slurm does not answer on this machine: what is queued is not known")
        return
    yield from (_waiting(note, listed[note.job]) for note in notes if _waits(listed.get(note.job)))


def _waits(entry: Listed | None) -> bool:
    return entry is not None and entry.state == queue.PENDING


def _waiting(note: Note, entry: Listed) -> Activity:
    suite, scale = renamed.owner(note.path.parents[2]), note.path.parents[1].name
    measures = dict.fromkeys(name.rpartition("/")[2] for name in note.items)
    return Activity(suite, scale, note.path.stem, ", ".join(measures), "queued", f"job {note.job}", entry.reason)
