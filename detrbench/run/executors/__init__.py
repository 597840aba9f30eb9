"""Who does the work of a run: this machine, a cluster that Slurm shares out, or what somebody else has installed.

Another executor is an entry point of the group `detrbench.executors`: its name is what `--executor` takes, and it leads
to a function like `local.opened`. Imports no torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

from detrbench.errors import unknown_name

if TYPE_CHECKING:
    from detrbench.run.plan import WorkItem
    from detrbench.run.work import Listener, Outcome, RunOptions

LOCAL, SLURM = "local", "slurm"
_OURS = {LOCAL: "detrbench.run.executors.local:opened", SLURM: "detrbench.run.executors.slurm:opened"}


class Executor(Protocol):
    """Does groups of work items, each under one lock, in an order in which nothing is missing that a group needs.

    Attributes:
        jobs: so many are done at once; the time left is estimated with it.
        leaves: what goes on when the command is interrupted, and how it is ended; empty where nothing does.
    """

    jobs: int
    leaves: str

    def do(self, groups: Sequence[Sequence[WorkItem]], options: RunOptions, listener: Listener) -> list[Outcome]:
        """Does the groups and returns what became of each item; `run.work.do` does one."""


def opened(name: str, options: RunOptions, jobs: int | None, settings: Mapping[str, str]) -> Any:
    """The executor of that name, ready inside a `with` block.

    Args:
        name: `local`, `slurm`, or an entry point's.
        options: of the run.
        jobs: groups to be done at once at most; None: as many as is usual there.
        settings: of the executor alone (`--slurm`).

    Raises:
        UsageError: nobody is called that, or a setting is wrong.
        EnvironmentLacking: it cannot work on this machine.
    """
    return _find(name)(options, jobs, settings)


def _find(name: str) -> Callable[[RunOptions, int | None, Mapping[str, str]], AbstractContextManager[Executor]]:
    if name in _OURS:
        module, _, function = _OURS[name].partition(":")
        return getattr(importlib.import_module(module), function)
    others = {entry.name: entry for entry in entry_points(group="detrbench.executors")}
    if name not in others:
        raise unknown_name("executor", name, [*_OURS, *others])
    return others[name].load()
