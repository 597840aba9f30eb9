"""This machine does the work: this process, those that share it (`--jobs`), those that train one cell together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

import detrbench.environment as environments
from detrbench.measures import TIMED
from detrbench.run import team as teams
from detrbench.run import work
from detrbench.run.plan import WorkItem
from detrbench.run.processes import Workers
from detrbench.run.reuse import KnownRecords
from detrbench.run.team import Team
from detrbench.run.work import Listener, Outcome, RunContext, RunOptions


@dataclass
class Local:
    """Several processes may share what is counted, trained and evaluated; memory and latency are taken alone, last.

    Attributes:
        workers: the processes that share what may be done at once; None: this one does everything.
        team: the processes that train and evaluate each cell together; alone, if not given.
    """

    workers: Workers | None = None
    team: Team = field(default_factory=Team)
    leaves: str = ""

    @property
    def jobs(self) -> int:
        return self.workers.jobs if self.workers else 1

    def do(self, groups: Sequence[Sequence[WorkItem]], options: RunOptions, listener: Listener) -> list[Outcome]:
        """See `Executor`.

        Raises:
            Unwritable: the results folder cannot be written.
            KeyboardInterrupt: after noting what was interrupted; everything done before is kept.
        """
        shared, ours = self._share_out(groups)
        outcomes = self.workers.do(shared, options, listener) if self.workers else []
        context = RunContext(options, KnownRecords(options.results), environments.capture(), self.team)
        for group in ours:
            outcomes += work.do(group, context, listener)
        return outcomes

    def _share_out(self, groups: Sequence[Sequence[WorkItem]]) -> tuple[list[Any], list[Any]]:
        """(groups for other processes, groups for this one); what needs no work is not worth another process."""
        theirs: list[Sequence[WorkItem]] = []
        ours: list[Sequence[WorkItem]] = []
        for group in groups:
            due = any(item.state == "todo" for item in group) and group[0].measure not in TIMED
            (theirs if self.workers and due else ours).append(group)
        return theirs, ours


@contextlib.contextmanager
def opened(options: RunOptions, jobs: int | None, settings: Mapping[str, str]) -> Iterator[Local]:
    """This machine, with the processes that the options ask for.

    Raises:
        EnvironmentLacking: there are fewer GPUs.
    """
    with _team(options) as team, _workers(jobs or 1) as workers:
        yield Local(workers, team)


def _workers(jobs: int) -> Any:
    if jobs == 1:
        return contextlib.nullcontext()
    return Workers(jobs, threads=max(1, torch.get_num_threads() // jobs))


def _team(options: RunOptions) -> Any:
    if teams.place_in_torchrun().size > 1:
        return teams.joined(options.device)
    return teams.launched(options.gpus, options.device) if options.gpus > 1 else contextlib.nullcontext(Team())
