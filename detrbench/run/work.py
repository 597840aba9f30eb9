"""Does work items: takes a step, keeps its record before the next one starts, notes what failed.

A killed run loses the step it was in, and training loses what came after its last checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from detrbench.data.samples import Dataset
from detrbench.data.spec import DataSpec, Split
from detrbench.errors import DetrbenchError
from detrbench.external import interpreter
from detrbench.external.interpreter import WorkerFailed
from detrbench.files import Unwritable, write_atomic
from detrbench.measures import TIMED
from detrbench.ranks import RankLost
from detrbench.results import locks
from detrbench.run import steps, time_limit
from detrbench.run.keys import count_keys
from detrbench.run.plan import WorkItem
from detrbench.run.reuse import KnownRecord, KnownRecords
from detrbench.run.team import Team
from detrbench.run.time_limit import Expired
from detrbench.suite.cells import Cell
from detrbench.training.checkpoint import STATES


@dataclass(frozen=True)
class RunOptions:
    """What the command line asked for."""

    results: Path = Path("results")
    scale: str | None = None
    expression: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    measures: tuple[str, ...] | None = None
    data: Path | None = None
    limit: int | None = None
    fresh: bool = False
    verify_data: bool = False
    train: bool = False  # what takes days, too
    batch_size: int = 1  # images of one size that are evaluated together
    device: str = "cpu"
    skip: tuple[int, ...] = ()  # steps that a training passes over
    tensorboard: bool = False  # trainings write for that too
    gpus: int = 1  # that train and evaluate a cell together; without GPUs, processes
    processes: int | None = None  # that repeat a timing; None: as many as its protocol says
    time_limit: float = 60 * time_limit.MINUTES  # seconds of a timed cell; 0: none


@dataclass(frozen=True)
class Outcome:
    """What became of one work item; one that was `given_up` took longer than it may."""

    item: WorkItem
    state: str
    why: str | None
    seconds: float = 0.0
    given_up: bool = False


class Listener(Protocol):
    """Is told how the run goes; `cli.progress` draws it."""

    def begin(self, items: Sequence[WorkItem]) -> None: ...

    def start(self, item: WorkItem) -> None: ...

    def advance(self, item: WorkItem, fraction: float | None, text: str, milestone: bool = False) -> None: ...

    def end(self, outcome: Outcome) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class RunContext:
    """What the work is done with: the options of the run, the records at hand, the machine, further processes."""

    options: RunOptions
    known: KnownRecords
    environment: Mapping[str, Any]
    team: Team = field(default_factory=Team)


@functools.lru_cache(maxsize=4)
def dataset_of(spec: DataSpec, split: Split) -> Dataset:
    """A data set, opened once."""
    from detrbench.data import open_dataset

    return open_dataset(spec, split)


def do(items: Sequence[WorkItem], context: RunContext, listener: Listener) -> list[Outcome]:
    """Does the items of one group under one lock each: those of a cell, or all latencies, which are timed together.

    Raises:
        Unwritable: the results folder cannot be written.
        KeyboardInterrupt: after noting what was interrupted.
    """
    if all(map(_is_noted, items)):  # nothing is written, so a folder that is only read will do
        return [_tell(listener, Outcome(item, item.state, item.why)) for item in items]
    outcomes = []
    with contextlib.ExitStack() as stack:
        held = {i.folder.path: stack.enter_context(i.folder.lock()) for i in {i.folder.path: i for i in items}.values()}
        busy = [item for item in items if not held[item.folder.path]]
        for item in busy:
            outcomes.append(_tell(listener, Outcome(item, "busy", f"another run holds this cell{_holder(item)}")))
        mine = [item for item in items if held[item.folder.path]]
        if mine and mine[0].measure == "latency":
            return outcomes + _do_latency(mine, context, listener)
        for item in mine:
            outcomes.append(_tell(listener, _do(item, context, listener)))
    return outcomes


def _holder(item: WorkItem) -> str:
    """Which run that is."""
    owner = locks.owner(item.folder.path)
    return f" ({owner.where})" if owner else ""


def _do(item: WorkItem, context: RunContext, listener: Listener) -> Outcome:
    settled = _settled(item)
    if settled:
        return settled
    started = _start(item, listener)
    try:
        if item.measure == "training":
            _prepare_training_folder(item)
        report = functools.partial(listener.advance, item)
        if item.measure == "complexity":
            return _count(item, context, report, started)
        equal = None if context.options.fresh else context.known.equal(item.measure, item.key, anew=True)
        if equal is not None:
            return _take_over(item, equal)
        limit = context.options.time_limit if item.measure in TIMED else None
        with time_limit.time_limit(limit):
            records = context.team.take(item, context.options.device, dataset_of, report)
        return _keep(item, records, context, time.monotonic() - started)
    except (KeyboardInterrupt, SystemExit, RankLost):
        item.folder.set_state(item.cell.id, item.measure, "not_measured", "interrupted")
        raise
    except Unwritable:
        raise
    except Expired as late:
        return _note_expired(item, late)
    except Exception as error:  # whatever went wrong in one cell must not stop the others
        return _note_failure(item, error)


def _count(item: WorkItem, context: RunContext, report: Callable[..., None], started: float) -> Outcome:
    """Takes the complexity; of what an equal cell of any suite has, a copy that names that cell."""
    known: Mapping[str, KnownRecord] = {} if context.options.fresh else context.known.counts(item.cell, anew=True)
    names = item.cell.protocols_of("complexity")
    fresh = {}
    if len(known) < len(names):
        item_left = dataclasses.replace(item, known=tuple(known), anew=context.options.fresh)
        fresh = steps.take(item_left, context.options.device, dataset_of, report)
    records = {name: known[name].envelope["records"][name] if name in known else fresh[name] for name in names}
    extra = {
        "count_keys": count_keys(item.cell),
        "counted_for": {name: record.origin for name, record in known.items()},
    }
    environment = context.environment if fresh else known[names[0]].envelope["environment"]
    outcome = _keep(item, records, context, time.monotonic() - started, environment, **extra)
    return outcome if fresh else dataclasses.replace(outcome, why=f"counted for {known[names[0]].origin}")


def _take_over(item: WorkItem, equal: KnownRecord) -> Outcome:
    """Copies an equal cell's record, which may have been taken in another suite, on another day, on another machine."""
    item.folder.take_over(item.measure, equal.folder)
    envelope = equal.envelope
    kept = {name: envelope[name] for name in ("environment", "seconds", "device", "weights")}
    kept |= {name: envelope[name] for name in ("official",) if name in envelope}
    item.folder.write_envelope(item.measure, item.key, envelope["records"], **kept, taken_for=equal.origin)
    _mark_done(item)
    return Outcome(item, "done", f"taken for {equal.origin}")


def _settled(item: WorkItem) -> Outcome | None:
    """The outcome of an item that needs no work, noted in the cell's status."""
    state, why = item.state, item.why
    needs_training = item.weights == "trained" and item.measure not in ("training", "complexity")
    if state == "todo" and needs_training and not item.trained_in.weights.is_file():
        state, why = "not_measured", _why_untrained(item)
    if state == "todo" or state == "reused":
        return None
    if not _says(item, state, why):
        item.folder.set_state(item.cell.id, item.measure, state, why)
    return Outcome(item, state, why)


def _says(item: WorkItem, state: str, why: str | None) -> bool:
    """Whether the cell's status says that of an item already."""
    return item.folder.read_status()["measures"].get(item.measure) == {"state": state, "why": why}


def _is_noted(item: WorkItem) -> bool:
    """Whether an item needs neither work nor a note."""
    return item.state in ("done", "not_measured") and _says(item, item.state, item.why)


def _why_untrained(item: WorkItem) -> str:
    training = item.trained_in.read_status()["measures"].get("training", {})
    if training.get("state") == "failed":
        return f"training failed: {training['why']}"
    return f"{item.cell.weights_of.id} is not trained" if item.cell.weights_of else "not trained"


def _start(item: WorkItem, listener: Listener) -> float:
    listener.start(item)
    item.folder.set_state(item.cell.id, item.measure, "running")
    return time.monotonic()


def _note_failure(item: WorkItem, error: Exception) -> Outcome:
    """Marks an item failed."""
    details = "".join(traceback.format_exception(error))
    if isinstance(error, WorkerFailed):
        details += error.details
    return mark_failed(item, explain(error), details)


def _note_expired(item: WorkItem, late: Expired) -> Outcome:
    item.folder.set_state(item.cell.id, item.measure, "not_measured", late.message)
    return Outcome(item, "not_measured", late.message, given_up=True)


def mark_failed(item: WorkItem, why: str, details: str) -> Outcome:
    """Notes why in the cell's status, and the details in its log."""
    item.folder.write_log(f"{item.measure} failed\n{details}")
    item.folder.set_state(item.cell.id, item.measure, "failed", why)
    return Outcome(item, "failed", why)


_OF_THE_CPU = "DefaultCPUAllocator: can't allocate memory"  # torch has no class of its own for it


def explain(error: Exception) -> str:
    """Why a step failed, in one line."""
    lines = str(error).strip().splitlines()
    first = lines[0] if lines else "no message"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _OF_THE_CPU in first:
        return f"out of memory: {first}"
    return first if isinstance(error, DetrbenchError) else f"{type(error).__name__}: {first}"


def _do_latency(items: list[WorkItem], context: RunContext, listener: Listener) -> list[Outcome]:
    """Times all cells in one go: as soon as one is due all are, for only interleaved timings can be compared."""
    settled = {item.folder.path: _settled(item) for item in items}
    again = any(outcome is None for outcome in settled.values())
    due = []
    outcomes: list[Outcome] = []
    for item in items:
        outcome = settled[item.folder.path]
        if outcome is None or (again and outcome.state == "done"):
            due.append(item)
        else:
            outcomes.append(_tell(listener, outcome))
    try:
        return outcomes + _time_together(due, context, listener)
    except (KeyboardInterrupt, SystemExit):
        for item in due:
            item.folder.set_state(item.cell.id, item.measure, "not_measured", "interrupted")
        raise


def _time_together(items: list[WorkItem], context: RunContext, listener: Listener) -> list[Outcome]:
    outcomes: list[Outcome] = []
    ready: dict[str, tuple[WorkItem, Any]] = {}
    options = context.options
    started, limit = time.monotonic(), options.time_limit
    for item in items:
        _start(item, listener)
        try:
            with time_limit.time_limit(limit):
                detector = steps.load_and_try(item, options.device, dataset_of, limit, options.processes)
                ready[item.cell.id] = item, detector
        except Expired as late:
            outcomes.append(_tell(listener, _note_expired(item, late)))
        except Exception as error:  # this one cannot be timed; the others can
            outcomes.append(_tell(listener, _note_failure(item, error)))
    if not ready:
        return outcomes
    first = next(iter(ready.values()))[0]
    try:
        report = functools.partial(listener.advance, first)
        with time_limit.time_limit(limit * len(ready)):
            records = steps.take_latency(ready, options.device, report, dataset_of, options.processes)
    except Expired as late:
        return outcomes + [_tell(listener, _note_expired(item, late)) for item, _ in ready.values()]
    except Exception as error:
        return outcomes + [_tell(listener, _note_failure(item, error)) for item, _ in ready.values()]
    seconds = (time.monotonic() - started) / len(ready)
    for id_, (item, _) in ready.items():
        found = records[id_]
        outcome = _note_failure(item, found) if isinstance(found, Exception) else _keep(item, found, context, seconds)
        outcomes.append(_tell(listener, outcome))
    return outcomes


def _keep(
    item: WorkItem,
    records: Mapping[str, Any],
    context: RunContext,
    seconds: float,
    environment: Mapping[str, Any] | None = None,
    **extra: Any,
) -> Outcome:
    extra |= {"device": context.options.device, "weights": item.weights}
    if item.official and item.measure != "complexity":
        extra["official"] = item.official
    if item.batch_size > 1 and item.measure == "accuracy":
        extra["batch_size"] = item.batch_size
    taken_in = {**(environment or context.environment), **_of_interpreter(item.cell)}
    item.folder.write_envelope(item.measure, item.key, records, taken_in, seconds, **extra)
    _mark_done(item)
    return Outcome(item, "done", None, seconds)


def _of_interpreter(cell: Cell) -> Mapping[str, Any]:
    """What the environment of a figure holds more, where another interpreter runs the detector: its versions."""
    if cell.external is None or cell.python is None:
        return {}
    return {"interpreter": interpreter.describe(cell.python, cell.external.packages[0])["versions"]}


def _mark_done(item: WorkItem) -> None:
    item.folder.set_state(item.cell.id, item.measure, "done")
    if item.measure == "training":  # only now: without its record a finished training would have to be done again
        for name in STATES:
            (item.folder.checkpoint / name).unlink(missing_ok=True)


def _tell(listener: Listener, outcome: Outcome) -> Outcome:
    listener.end(outcome)
    return outcome


def _prepare_training_folder(item: WorkItem) -> None:
    """A checkpoint of this very training is gone on with; one of another training is removed."""
    note = item.folder.checkpoint / "key"
    same = note.is_file() and note.read_text(encoding="utf-8") == item.key
    if item.folder.checkpoint.exists() and not same:
        shutil.rmtree(item.folder.checkpoint)
    write_atomic(note, item.key)
