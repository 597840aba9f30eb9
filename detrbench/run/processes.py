"""Several processes that do groups of work items at once; how a group is done stands in `work`.

A process that dies, for want of memory or by a crash in compiled code, takes one step with it: that item is noted as
failed, and another process goes on with the rest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from typing import Any

import detrbench.environment as environments
from detrbench.errors import DetrbenchError
from detrbench.run import work
from detrbench.run.parent import end_with_the_parent
from detrbench.run.plan import WorkItem, touches
from detrbench.run.reuse import KnownRecords
from detrbench.run.work import Listener, Outcome, RunContext, RunOptions

# One process imports PyTorch and forks the others, which are there at once and share its memory; Apple's libraries do
# not survive a fork.
_CONTEXT: SpawnContext | ForkServerContext
if sys.platform == "darwin":
    _CONTEXT = multiprocessing.get_context("spawn")
else:
    _CONTEXT = multiprocessing.get_context("forkserver")
    _CONTEXT.set_forkserver_preload([work.__name__])
_PATIENCE = 5.0  # seconds that a process has to note what was interrupted

_Items = dict[int, WorkItem]  # by their place in the plan


@dataclass
class _Group:
    """What one process does in one go. Of two groups that touch one thing, the later waits."""

    items: _Items
    touches: set[Any]


@dataclass
class _Worker:
    """A process, its place among them, and the group that it is at, from which items go as they end."""

    process: Any
    pipe: Connection
    place: int
    group: _Group | None = None

    def give(self, group: _Group, options: RunOptions) -> None:
        self.group = group
        self.pipe.send((group.items, options))


class Workers:
    """A number of processes that live as long as the `with` block.

    Args:
        jobs: at most so many at once; where there are GPUs, each has one, and they share them where these are fewer.
        threads: of each; also what torch computes with, so figures do not depend on who else is at work.
    """

    def __init__(self, jobs: int, threads: int) -> None:
        self.jobs, self.threads = jobs, threads
        self.workers: list[_Worker] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self.workers:
            worker.pipe.close()  # one that waits ends by itself; one that works notices at its next step
        for worker in self.workers:
            worker.process.join(_PATIENCE)
            worker.process.kill()
            worker.process.join()

    def do(self, groups: Sequence[Sequence[WorkItem]], options: RunOptions, listener: Listener) -> list[Outcome]:
        """Does the groups and returns what became of each item, in the order given.

        Raises:
            Unwritable: as one of the processes did; the others are stopped.
            KeyboardInterrupt: in this process; those in the others note what was interrupted.
        """
        numbers = itertools.count()
        waiting = [_Group({next(numbers): item for item in group}, touches(group)) for group in groups]
        outcomes: dict[int, Outcome] = {}
        while waiting or self._busy():
            self._hand_out(waiting, options)
            busy = self._busy()
            for pipe in wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index]
                try:
                    message = worker.pipe.recv()
                except (EOFError, ConnectionError):
                    waiting[:0] = self._note_death(worker, listener, outcomes)
                else:
                    _pass_on(message, worker, listener, outcomes)
        return [outcomes[number] for number in sorted(outcomes)]

    def _busy(self) -> dict[Connection, _Worker]:
        return {worker.pipe: worker for worker in self.workers if worker.group}

    def _hand_out(self, waiting: list[_Group], options: RunOptions) -> None:
        """Gives each free process the first group that need not wait for another."""
        at_work = [worker.group for worker in self._busy().values() if worker.group]
        touched = set().union(*(group.touches for group in at_work))
        for group in list(waiting):
            if len(at_work) >= self.jobs:
                return
            if not group.touches & touched:
                self._free(options.device).give(group, options)
                at_work.append(group)
                waiting.remove(group)
            touched |= group.touches

    def _free(self, device: str) -> _Worker:
        for worker in self.workers:
            if not worker.group and worker.process.is_alive():
                return worker
        ours, theirs = _CONTEXT.Pipe()
        place = min(set(range(self.jobs)) - {worker.place for worker in self.workers})
        process = _CONTEXT.Process(target=_work, args=(theirs, self.threads, own_gpu(place, device)), daemon=False)
        process.start()
        theirs.close()
        self.workers.append(_Worker(process, ours, place))
        return self.workers[-1]

    def _note_death(self, worker: _Worker, listener: Listener, outcomes: dict[int, Outcome]) -> list[_Group]:
        """Notes the item that a dead process was at as failed; gives the rest of its group."""
        worker.process.join()
        self.workers.remove(worker)
        if worker.group is None or not worker.group.items:
            return []
        number, item = next(iter(worker.group.items.items()))
        code = worker.process.exitcode
        cause = "killed: out of memory?" if code == -9 else f"exit code {code}"
        why = f"its process ended ({cause})"
        outcomes[number] = work.mark_failed(item, why, why)
        listener.end(outcomes[number])
        del worker.group.items[number]
        return [worker.group] if worker.group.items else []


def own_gpu(place: int, device: str) -> str | None:
    """The GPU of the process at that place, as CUDA_VISIBLE_DEVICES names it; None where none is to be chosen."""
    if device != "cuda":  # no GPU, or a certain one
        return None
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = given.split(",") if given else [str(number) for number in range(torch.cuda.device_count())]
    return visible[place % len(visible)]


def _pass_on(message: Any, worker: _Worker, listener: Listener, outcomes: dict[int, Outcome]) -> None:
    """Passes on what a process tells of its item, in terms of this process's own."""
    if isinstance(message, DetrbenchError):
        raise message
    if message is None or worker.group is None:  # only now has it let go of the cells' locks
        worker.group = None
        return
    number, what, details = message
    item = worker.group.items[number]
    if what == "start":
        listener.start(item)
    elif what == "advance":
        listener.advance(item, *details)
    else:
        outcomes[number] = dataclasses.replace(details, item=item)
        del worker.group.items[number]
        listener.end(outcomes[number])


class _Teller:
    """A listener that tells the parent; where there is none any more, the process ends."""

    def __init__(self, pipe: Connection, items: _Items) -> None:
        self.pipe = pipe
        self.numbers = {id(item): number for number, item in items.items()}

    def begin(self, items: Sequence[WorkItem]) -> None:
        """The parent knows."""

    def start(self, item: WorkItem) -> None:
        self._tell(item, "start", None)

    def advance(self, item: WorkItem, fraction: float | None, text: str, milestone: bool = False) -> None:
        self._tell(item, "advance", (fraction, text, milestone))

    def end(self, outcome: Outcome) -> None:
        self._tell(outcome.item, "end", outcome)

    def close(self) -> None:
        """The parent closes."""

    def _tell(self, item: WorkItem, what: str, details: Any) -> None:
        try:
            self.pipe.send((self.numbers[id(item)], what, details))
        except ConnectionError:
            os._exit(1)  # nobody waits for this work; what is done is kept


def _work(pipe: Connection, threads: int, gpu: str | None) -> None:
    """What each process does: group after group, until the parent closes the pipe."""
    end_with_the_parent()
    if gpu is not None:  # before CUDA is asked for the first time
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # also where SIGINT is ignored: `detrbench run ... &`
    with contextlib.suppress(EOFError, ConnectionError, KeyboardInterrupt):
        import torch

        torch.set_num_threads(threads)
        environment = environments.capture()
        known: dict[Path, KnownRecords] = {}
        while True:
            items, options = pipe.recv()
            context = RunContext(options, known.setdefault(options.results, KnownRecords(options.results)), environment)
            try:
                work.do(list(items.values()), context, _Teller(pipe, items))
                pipe.send(None)
            except DetrbenchError as error:
                pipe.send(error)
