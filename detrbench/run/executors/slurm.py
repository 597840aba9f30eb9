"""Slurm does the work: each cell is a job, and what is timed is one job more, last and alone on its machine.

Jobs are submitted through submitit. What a cell needs of another is a dependency between their jobs; jobs that wait for
the same are one array. A job that Slurm is about to stop (SIGUSR2: pre-empted, or its time is up) keeps its state and
is requeued; one that was killed is submitted again from here, a few times. The jobs do not need the command that
submitted them: when it is interrupted they go on, and when it is started again it finds them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import detrbench.environment as environments
from detrbench.errors import EnvironmentLacking, UsageError
from detrbench.files import write_atomic
from detrbench.measures import TIMED
from detrbench.run import plan, work
from detrbench.run.executors import queue
from detrbench.run.executors.queue import Listed, Note
from detrbench.run.executors.told import FINISHED, INTERRUPTED, Told
from detrbench.run.plan import WorkItem
from detrbench.run.reuse import KnownRecords
from detrbench.run.work import Listener, Outcome, RunContext, RunOptions

POLL = 10.0  # seconds between two looks at the queue
GRACE = 60.0  # seconds for which a file server may show a file as it was
PATIENCE = 600.0  # seconds for which Slurm may not answer
TRIES = 3  # of a job that is killed each time
_AT_ONCE = 256  # jobs of an array, where nobody says how many
_LONGEST = 1000  # jobs in one array; Slurm's own limit is 1001 unless a cluster has another
_REQUEUES = 10**6  # as often as its time is up: a training may take weeks in jobs of an hour
_OURS = {"array", "dependency", "error", "job_name", "ntasks", "ntasks_per_node", "output", "open_mode", "requeue"}


def pick_device(asked: str, settings: Mapping[str, str]) -> str:
    """What the jobs compute on: GPUs where some are asked for. This machine may well have none.

    Raises:
        UsageError: a certain GPU, which is for Slurm to choose.
    """
    if asked == "auto":
        return "cuda" if _asks_for_gpus(settings) else "cpu"
    if asked not in ("cpu", "cuda"):
        raise UsageError(f"--device {asked}: expected auto, cpu or cuda: Slurm chooses which GPU a job has")
    return asked


def _asks_for_gpus(settings: Mapping[str, str]) -> bool:
    return any(name.startswith("gpu") or (name == "gres" and "gpu" in settings[name]) for name in settings)


def parse(pairs: Iterable[str]) -> dict[str, str]:
    """`partition=a,time=2:00:00,nodelist=n1,n2` as sbatch's options; what has no `=` belongs to the value before it.

    Raises:
        UsageError: no such pair, or an option that detrbench sets itself.
    """
    found: dict[str, str] = {}
    name = None
    for part in (part for pair in pairs for part in pair.split(",")):
        left, equals, value = part.partition("=")
        if equals and left.strip():
            name = left.strip().replace("-", "_")
            found[name] = value.strip()
        elif name is None or equals:
            raise UsageError(f"--slurm {part}: expected NAME=VALUE", hint="--slurm partition=gpu,time=8:00:00")
        else:
            found[name] += f",{part}"
    ours = sorted(_OURS & found.keys())
    if ours:
        raise UsageError(f"--slurm {ours[0]}: detrbench sets it", hint="--gpus N, --jobs N")
    return found


def minutes(time: str) -> int:
    """Slurm's ways to write a time (`90`, `90:00`, `1:30:00`, `1-12`, `1-12:30`), in minutes.

    Raises:
        UsageError: it is none.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time)
    if not match:
        raise UsageError(f"--slurm time={time}: expected minutes, H:M:S or D-H:M:S")
    days, first, second, third = (int(part) if part else None for part in match.groups())
    if days is not None:
        return (days * 24 + (first or 0)) * 60 + (second or 0)
    return (first or 0) * 60 + (second or 0) if third is not None else first or 0


@contextlib.contextmanager
def opened(options: RunOptions, jobs: int | None, settings: Mapping[str, str]) -> Iterator[Slurm]:
    """Slurm, with sbatch's options.

    Raises:
        UsageError: no time limit; processes that do not fit on the nodes.
        EnvironmentLacking: no submitit, or no Slurm.
    """
    if "time" not in settings:
        raise UsageError("--slurm: time is missing", hint="--slurm time=8:00:00; then a job goes on from where it was")
    if importlib.util.find_spec("submitit") is None:
        raise EnvironmentLacking("--executor slurm needs submitit", hint="pip install 'detrbench[slurm]'")
    yield Slurm(options.results, _submission(options, jobs, settings))


def _submission(options: RunOptions, jobs: int | None, settings: Mapping[str, str]) -> dict[str, Any]:
    """What all jobs are submitted with, in submitit's terms."""
    others = {name: value for name, value in settings.items() if name not in ("time", "nodes")}
    nodes = settings.get("nodes", "1")
    if not nodes.isdecimal() or not int(nodes) or options.gpus % int(nodes):
        raise UsageError(f"--slurm nodes={nodes} with --gpus {options.gpus}: expected as many on every node")
    each = options.gpus // int(nodes)
    if options.device == "cuda" and not _asks_for_gpus(settings):
        others["gpus_per_node"] = str(each)
    return {
        "time": minutes(settings["time"]),
        "nodes": int(nodes),
        "ntasks_per_node": each,
        "array_parallelism": jobs or _AT_ONCE,
        "wckey": None,
        "additional_parameters": {**others, "requeue": True},
    }


@dataclass(eq=False)
class _Job:
    """A job to be, or that is.

    Attributes:
        path: of its note.
        groups: what it is to do.
        needs: jobs that must have done theirs before.
        open: its items that have not ended, by name.
        id: its number, once it is submitted.
        also: a job that has to end before, whatever became of it.
        tries: how often it was submitted.
        begun: whether it was seen at work.
        left: how it says that it ended.
        gone: since when it is listed no more.
    """

    path: Path
    groups: list[Sequence[WorkItem]]
    needs: list[_Job]
    open: dict[str, WorkItem]
    id: str | None = None
    also: str | None = None
    tries: int = 0
    begun: bool = False
    left: str | None = None
    gone: float | None = None
    started: set[str] = field(default_factory=set)
    told: Told = field(init=False)

    def __post_init__(self) -> None:
        self.told = Told(queue.told_of(self.path))

    @property
    def timed(self) -> bool:
        return self.groups[0][0].measure in TIMED

    @property
    def dependency(self) -> str | None:
        """What it waits for, as sbatch has it: that others have done their work, or that another is gone."""
        waits = [f"afterok:{need.id}" for need in self.needs if need.open]
        return ",".join(waits + [f"afterany:{self.also}"] * (self.also is not None)) or None


class Slurm:
    """An executor: submits, watches, and submits again.

    Args:
        results: the results folder, which all machines see.
        submission: what jobs are submitted with.
    """

    def __init__(self, results: Path, submission: Mapping[str, Any]) -> None:
        self.name, self.submission = queue.name(results), submission
        self.jobs = int(submission["array_parallelism"])
        self.silent_since: float | None = None
        self.leaves = f"the jobs go on, and this command finds them again; scancel --name={self.name} ends them"

    def do(self, groups: Sequence[Sequence[WorkItem]], options: RunOptions, listener: Listener) -> list[Outcome]:
        """See `Executor`. What needs no work is noted here.

        Raises:
            EnvironmentLacking: Slurm does not answer for minutes.
            UsageError: it does not take the jobs.
        """
        options = replace(options, results=options.results.resolve())
        split: dict[bool, list[Sequence[WorkItem]]] = {True: [], False: []}
        for group in groups:
            split[_is_due(group, options.device)].append(group)
        context = RunContext(options, KnownRecords(options.results), environments.capture())
        outcomes = [outcome for group in split[False] for outcome in _note(group, context, listener)]
        jobs = _jobs(split[True])
        self._find(jobs)
        while any(job.open for job in jobs):
            self._submit(jobs, options)
            time.sleep(POLL)
            outcomes += self._look(jobs, listener)
        return outcomes

    def _find(self, jobs: Sequence[_Job]) -> None:
        """Takes up the jobs that an earlier command has left in the queue."""
        listed = self._listed() or {}
        for job in jobs:
            note = Note.read(job.path)
            if note is None or note.job not in listed:
                continue
            entry, known = listed[note.job], all(note.items.get(name) == item.key for name, item in job.open.items())
            if known and entry.reason != queue.NEVER and all(need.id or not need.open for need in job.needs):
                job.id, job.tries = note.job, 1
            elif entry.state == queue.PENDING:
                queue.cancel([note.job])
            else:
                job.also = note.job

    def _submit(self, jobs: Sequence[_Job], options: RunOptions) -> None:
        """Submits what is not in the queue: what waits for the same as one array, what is waited for first."""
        while new := [job for job in jobs if job.open and job.id is None]:
            ready = [job for job in new if all(need.id or not need.open for need in job.needs)]
            together: dict[Any, list[_Job]] = {}
            for job in ready:
                together.setdefault((job.path.parent, job.dependency, job.timed), []).append(job)
            for alike in together.values():
                for start in range(0, len(alike), _LONGEST):
                    self._submit_array(alike[start : start + _LONGEST], options)

    def _submit_array(self, jobs: Sequence[_Job], options: RunOptions) -> None:
        from submitit import SlurmExecutor

        from detrbench.run.executors.job import Job

        executor = SlurmExecutor(jobs[0].path.parent, _REQUEUES)
        waits, alone = jobs[0].dependency, True if jobs[0].timed else None
        executor.update_parameters(job_name=self.name, dependency=waits, exclusive=alone, **self.submission)
        for job in jobs:
            write_atomic(job.told.path, "")
            job.told, job.begun, job.left, job.gone = Told(job.told.path), False, None, None
        work = [Job(job.groups, options, job.told.path) for job in jobs]
        try:
            with executor.batch():
                submitted = [executor.submit(each) for each in work]
        except Exception as error:  # whatever submitit makes of what sbatch says
            raise UsageError(f"sbatch refuses: {(str(error).strip().splitlines() or ['no reason'])[-1]}") from error
        for job, there in zip(jobs, submitted):
            job.id, job.tries = there.job_id, job.tries + 1
            Note(job.path, job.id, {name: item.key for name, item in job.open.items()}).write()

    def _look(self, jobs: Sequence[_Job], listener: Listener) -> list[Outcome]:
        """Hears what became of the jobs since the last look: what items ended, which jobs are gone."""
        listed = self._listed()
        if listed is None:
            return []
        outcomes: list[Outcome] = []
        for job in jobs:
            if not job.open or job.id is None:  # settled, or to be submitted again
                continue
            entry = listed.get(job.id)
            job.gone = None if entry else job.gone or time.monotonic()
            if entry is None or entry.state != queue.PENDING:
                outcomes += _hear(job, listener)
            if entry is None and job.open:
                outcomes += _tell(self._settle(job, jobs), listener)
        return outcomes

    def _listed(self) -> dict[str, Listed] | None:
        try:
            found = queue.listed(self.name)
        except OSError:
            raise EnvironmentLacking("--executor slurm: this machine has no squeue", "run it where sbatch is") from None
        now = time.monotonic()
        self.silent_since = None if found is not None else self.silent_since or now
        if self.silent_since is not None and now - self.silent_since > PATIENCE:
            raise EnvironmentLacking("Slurm does not answer", f"{self.leaves}; sinfo says what is wrong")
        return found

    def _settle(self, job: _Job, jobs: Sequence[_Job]) -> list[Outcome]:
        """What becomes of a job that is gone and has not done all of its items."""
        if job.left is None and job.gone is not None and time.monotonic() - job.gone < GRACE:
            return []  # the file server may still show its file as it was
        if job.begun and job.left is None and job.tries < TRIES:
            outcomes = []
            job.id = None
        elif job.left == INTERRUPTED:
            why = "interrupted: its job was cancelled"
            outcomes = [Outcome(item, "not_measured", why, given_up=True) for item in job.open.values()]
        else:
            outcomes = [work.mark_failed(item, _why(job), _why(job)) for item in job.open.values()]
        if outcomes:
            job.open = {}
        _free_waiting(job, jobs)
        return outcomes


def _is_due(group: Sequence[WorkItem], device: str) -> bool:
    """Whether there is work in a group; what is timed may have been timed by any machine of the cluster."""
    return any(item.state == "todo" and not (item.measure in TIMED and plan.was_timed(item, device)) for item in group)


def _note(group: Sequence[WorkItem], context: RunContext, listener: Listener) -> list[Outcome]:
    """The outcomes of a group without work."""
    timed = [item for item in group if item.state == "todo"]
    settled = [item for item in group if item not in timed]
    outcomes = work.do(settled, context, listener) if settled else []
    return outcomes + _tell([Outcome(item, "done", "timed on another machine") for item in timed], listener)


def _tell(outcomes: Sequence[Outcome], listener: Listener) -> list[Outcome]:
    for outcome in outcomes:
        listener.end(outcome)
    return list(outcomes)


def _jobs(groups: Iterable[Sequence[WorkItem]]) -> list[_Job]:
    """A job for each cell and one for what is timed in a suite, in the order of the first group of each."""
    together: dict[Path, list[Sequence[WorkItem]]] = {}
    for group in groups:
        item = group[0]
        name = "timed" if item.measure in TIMED else item.folder.path.name
        path = queue.folder(item.folder) / f"{name}.json"
        together.setdefault(path, []).append(group)
    jobs: list[_Job] = []
    touched: list[set[Any]] = []
    for path, its in together.items():
        touches = plan.touches((item for group in its for item in group), counts=False)
        needs = [job for job, others in zip(jobs, touched) if touches & others]
        jobs.append(_Job(path, its, needs, {item.name: item for group in its for item in group}))
        touched.append(touches)
    return jobs


def _hear(job: _Job, listener: Listener) -> list[Outcome]:
    """Passes on what a job tells, in terms of this process's own items."""
    outcomes = []
    for line in job.told.news():
        item = job.open.get(line.get("item", ""))
        if line["what"] == "begin":
            job.begun, job.left = True, None
        elif line["what"] == "left":
            job.left = line["why"]
        elif item is None:
            continue
        elif line["what"] == "end":
            outcomes += _tell([Outcome(item, line["state"], line["why"], line["seconds"], line["given_up"])], listener)
            del job.open[item.name]
        else:
            _start(job, item, listener)
            if line["what"] == "advance":
                listener.advance(item, line["fraction"], line["text"], line["milestone"])
    return outcomes


def _start(job: _Job, item: WorkItem, listener: Listener) -> None:
    """Tells that an item has begun, once: a requeued job begins it again."""
    if item.name not in job.started:
        job.started.add(item.name)
        listener.start(item)


def _why(job: _Job) -> str:
    """Why a job that is gone has not done its work."""
    log = job.path.with_name(f"{job.id}_0_log.err")
    if job.left == FINISHED:
        return f"its job left it out ({log})"
    if job.left is not None:
        return job.left
    if not job.begun:
        return f"its job ended before it began ({log})"
    return f"its job was killed {TRIES} times: out of memory? ({log})"


def _free_waiting(gone: _Job, jobs: Iterable[_Job]) -> None:
    """Takes jobs off the queue that wait in vain, for they are submitted again with what they are to wait for now."""
    waiting = [job for job in jobs if gone in job.needs and job.id and job.open and not job.begun]
    if not waiting:
        return
    queue.cancel([job.id for job in waiting if job.id])
    for job in waiting:
        job.id = None
        _free_waiting(job, jobs)
