"""What a job on a cluster does, on its own machine: some groups of work items, one after the other."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import submitit
from submitit.helpers import DelayedSubmission, TorchDistributedEnvironment

import detrbench.environment as environments
from detrbench.results import locks
from detrbench.run import plan, work
from detrbench.run import team as teams
from detrbench.run.executors.told import FINISHED, INTERRUPTED, Teller
from detrbench.run.plan import WorkItem
from detrbench.run.reuse import KnownRecords
from detrbench.run.team import Team
from detrbench.run.work import RunContext, RunOptions

_LOOK = 2.0  # seconds between two looks at locks


@dataclass
class Job:
    """Submitit keeps it in a file and calls it on each task of the job.

    Attributes:
        groups: what there is to do.
        options: of the run.
        told: the file that tells how it goes; see `told`.
    """

    groups: Sequence[Sequence[WorkItem]]
    options: RunOptions
    told: Path

    def __call__(self) -> None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # the step in hand is noted as interrupted
        tasks = submitit.JobEnvironment().num_tasks
        with _joined(self.options.device) if tasks > 1 else contextlib.nullcontext(Team()) as team:
            if team.ranks.rank == 0:
                self._lead(team)

    def checkpoint(self) -> DelayedSubmission:
        """What is to be done when the job is requeued: the same; it goes on from what is in the results folder."""
        return DelayedSubmission(self)

    def _lead(self, team: Team) -> None:
        environment, device = environments.capture(), self.options.device
        context = RunContext(self.options, KnownRecords(self.options.results), environment, team)
        teller = Teller(self.told)
        teller.begin([])
        try:
            for group in self.groups:
                _wait_for_locks(group)
                work.do([_as_it_is(item, environment, device) for item in group], context, teller)
        except KeyboardInterrupt:
            teller.leave(INTERRUPTED)
            raise
        except Exception as error:
            teller.leave(work.explain(error))
            raise
        teller.leave(FINISHED)


def _wait_for_locks(group: Sequence[WorkItem]) -> None:
    """Until cells are free that a killed job held on another machine: its silence has to last before it tells that."""
    until = time.monotonic() + locks.SILENCE + 2 * locks.BEAT
    while any(locks.owner(item.folder.path) for item in group) and time.monotonic() < until:
        time.sleep(_LOOK)


def _as_it_is(item: WorkItem, environment: Mapping[str, Any], device: str) -> WorkItem:
    """The item as this machine would plan it now: what is done when a job is begun again is not done again."""
    item = plan.timed_on(item, environment, device)
    return replace(item, state="done") if item.state == "todo" and item.folder.has(item.measure, item.key) else item


def _joined(device: str) -> Any:
    TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    return teams.joined(device)
