"""Several processes that train and evaluate one cell together, each on a GPU of its own; without GPUs, on the CPUs.

This process is rank 0: it holds the locks, writes the records and does alone whatever is not shared. The others, its
helpers, wait for orders and take the same steps beside it. They are started here (`launched`), or all by torchrun, on
one machine or several (`joined`).
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import itertools
import multiprocessing
import os
import pickle
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist

from detrbench.errors import EnvironmentLacking
from detrbench.ranks import ALONE, RankLost, Ranks
from detrbench.run import steps
from detrbench.run.parent import end_with_the_parent
from detrbench.run.plan import WorkItem
from detrbench.run.steps import OpenData, Report

_HERE = "127.0.0.1"
_PATIENCE = datetime.timedelta(hours=1)  # how long a process waits for another that is still there
_LOOK = datetime.timedelta(minutes=5)
_GRACE = 5.0  # seconds that helpers have to end


class Team:
    """This process and its helpers, or alone.

    Args:
        ranks: as joined.
        store: where orders are left for the helpers.
        helpers: those that were started here.
    """

    def __init__(self, ranks: Ranks = ALONE, store: Any = None, helpers: Sequence[Any] = ()) -> None:
        self.ranks, self.store, self.helpers = ranks, store, helpers
        self.orders = itertools.count()

    def take(self, item: WorkItem, device: str, open_data: OpenData, report: Report) -> dict[str, Any]:
        """One measure of one cell, with the helpers where it is one that they share: records by protocol.

        Raises:
            RankLost: a helper has ended.
        """
        if self.ranks.size == 1 or item.measure not in steps.SHARED:
            return steps.take(item, device, open_data, report)
        self._order((item, device))
        try:
            with _threads_for(self.ranks.size if self.helpers else 1):
                return self.ranks.alike(lambda: steps.take(item, device, open_data, report, self.ranks))
        except RankLost as lost:
            raise RankLost(f"{self._who_ended()}{lost.message}", lost.hint) from lost

    def _order(self, what: tuple[WorkItem, str] | None) -> None:
        self.store.set(_place(next(self.orders)), pickle.dumps(what))

    def _who_ended(self) -> str:
        for rank, helper in enumerate(self.helpers, 1):
            helper.join(1.0)
            if helper.exitcode:
                return f"process {rank} of {self.ranks.size} ended with {_ending(helper.exitcode)}: "
        return ""

    def dismiss(self) -> None:
        """Sends the helpers home."""
        with contextlib.suppress(RuntimeError):
            self._order(None)


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _place(order: int) -> str:
    return f"detrbench/order/{order}"


@contextlib.contextmanager
def launched(count: int, device: str) -> Iterator[Team]:
    """This process with `count` - 1 helpers on this machine, which end with the block.

    Raises:
        EnvironmentLacking: there are fewer GPUs.
    """
    if device.startswith("cuda") and torch.cuda.device_count() < count:
        raise EnvironmentLacking(f"--gpus {count}: there are {torch.cuda.device_count()}", "detrbench doctor")
    store = dist.TCPStore(_HERE, 0, count, is_master=True, wait_for_workers=False)
    context = multiprocessing.get_context("spawn")
    helpers = [context.Process(target=_help, args=(rank, count, store.port, device)) for rank in range(1, count)]
    for helper in helpers:
        helper.start()
    try:
        _await(helpers, store)
        team = Team(_join(store, 0, count, device, 0), store, helpers)
        try:
            yield team
        finally:
            team.dismiss()
            dist.destroy_process_group()
    finally:
        for helper in helpers:
            helper.join(_GRACE)
            helper.kill()


def _await(helpers: Sequence[Any], store: Any) -> None:
    """Until all helpers have come up; one that ended before would be waited for in vain."""
    for rank, helper in enumerate(helpers, 1):
        while not store.check([_up(rank)]):
            helper.join(0.05)
            if not helper.is_alive():
                raise RankLost(f"process {rank} did not start: {_ending(helper.exitcode)}")


def _up(rank: int) -> str:
    return f"detrbench/up/{rank}"


def place_in_torchrun() -> Ranks:
    """Which of how many processes this is that torchrun, or whatever sets its variables, has started."""
    return Ranks(*(int(os.environ.get(name, usual)) for name, usual in (("RANK", "0"), ("WORLD_SIZE", "1"))))


@contextlib.contextmanager
def joined(device: str) -> Iterator[Team]:
    """This process with those that torchrun started beside it. Rank 0 leads inside the block; any other helps."""
    store, rank, size = next(iter(dist.rendezvous("env://")))
    local = int(os.environ.get("LOCAL_RANK", rank))
    ranks = _join(store, rank, size, device, local)
    team = Team(ranks, store)
    try:
        if rank:
            assist(ranks, store, local)
        yield team
    finally:
        if rank == 0:
            team.dismiss()
        dist.destroy_process_group()


def _join(store: Any, rank: int, size: int, device: str, local: int) -> Ranks:
    """Meets the other processes; what is no tensor of a GPU travels by gloo, so that nobody waits for a GPU."""
    if device.startswith("cuda"):
        torch.cuda.set_device(local)
    backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    return Ranks(rank, size)


def _help(rank: int, size: int, port: int, device: str) -> None:
    """What a helper that was started here does."""
    end_with_the_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process takes care of it
    with contextlib.suppress(RuntimeError, RankLost), _threads_for(size):  # where that one is gone, nobody asks why
        store = dist.TCPStore(_HERE, port, size, is_master=False)
        store.set(_up(rank), "")
        assist(_join(store, rank, size, device, rank), store, rank)


def assist(ranks: Ranks, store: Any, local: int) -> None:
    """Takes steps beside the first process, until that one sends this one home.

    Args:
        ranks: as joined.
        store: holds the orders.
        local: number of this process's GPU.

    Raises:
        RankLost: another process has ended.
    """
    from detrbench.run.work import dataset_of

    for number in itertools.count():
        order = pickle.loads(_wait_for(store, _place(number)))  # noqa: S301 - from our own first process
        if order is None:
            return
        item, device = order
        device = f"cuda:{local}" if device.startswith("cuda") else device
        try:
            ranks.alike(functools.partial(steps.take, item, device, dataset_of, _say_nothing, ranks))
        except RankLost:
            raise
        except Exception:
            continue  # the first process has heard of it, and notes it


def _wait_for(store: Any, place: str) -> bytes:
    """What the first process leaves there, however long it works alone before."""
    while True:
        with contextlib.suppress(dist.DistStoreError):  # nothing yet
            store.wait([place], _LOOK)
            return bytes(store.get(place))


def _say_nothing(fraction: float | None, text: str, milestone: bool = False) -> None:
    """The first process says how far all are."""


@contextlib.contextmanager
def _threads_for(processes: int) -> Iterator[None]:
    """So many processes share the cores inside the block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // processes))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
