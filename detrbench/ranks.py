"""Processes that train and evaluate one detector together, in the terms of the field: rank r of a world of n.

All do the same; what differs is the part that each takes. `share` is how they part and meet: every process does its own
work, all get what all have done, and where one fails all fail alike, so that nobody waits for it.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from detrbench.errors import EnvironmentLacking

T = TypeVar("T")


class RankLost(EnvironmentLacking):
    """A process of the group has ended: nothing can be done together any more."""


@dataclass(frozen=True)
class Ranks:
    """This process and the others.

    Attributes:
        rank: its number, from 0, which alone writes files.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    def share(self, work: Callable[[], T]) -> list[T]:
        """Does this process's part; returns that of every process, in their order.

        Raises:
            RankLost: another process has ended.
            Exception: what the first of those that failed raised.
        """
        if self.size == 1:
            return [work()]
        found: list[Any] = [None] * self.size
        mine = _attempt(work)
        with _together():
            dist.all_gather_object(found, mine)
        for rank, each in enumerate(found):
            if isinstance(each, _Failure):
                vars(each.error)[_KNOWN] = True
                raise each.error from RuntimeError(f"in process {rank}:\n{each.details}")
        return found

    def together(self, work: Callable[[], T]) -> T:
        """The same where the parts concern nobody else: returns this process's own."""
        kept: list[T] = []
        self.share(lambda: kept.append(work()))
        return kept[0]

    def from_first(self, work: Callable[[], T]) -> T:
        """What rank 0 alone does, for all."""
        found = [self.together(lambda: work() if self.rank == 0 else None)]
        if self.size > 1:
            with _together():
                dist.broadcast_object_list(found, src=0)
        return found[0]  # type: ignore[return-value]

    def alike(self, work: Callable[[], T]) -> T:
        """Does what all do and in which they meet: one that fails by itself tells the others at their next meeting."""
        try:
            done = work()
        except RankLost:
            raise
        except Exception as error:
            if _KNOWN not in vars(error):
                self.share(functools.partial(_raise, error))
            raise
        self.share(lambda: None)
        return done

    def gather(self, value: Tensor) -> list[Tensor]:
        """A tensor of every process, of one size and type, in their order."""
        found = [torch.empty_like(value) for _ in range(self.size)]
        with _together():
            dist.all_gather(found, value)
        return found

    def add_up(self, value: Tensor) -> None:
        """Adds the other processes' tensors to this one's, in place and in an order that nobody knows."""
        with _together():
            dist.all_reduce(value)


ALONE = Ranks()
_KNOWN = "known_to_all_ranks"  # marks an error that every process raises


@dataclass
class _Failure:
    """What a process raised, and where, on its way to the others."""

    error: Exception
    details: str


def _raise(error: Exception) -> None:
    raise error


def _attempt(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:
        return _Failure(_that_travels(error), traceback.format_exc())


def _that_travels(error: Exception) -> Exception:
    """The error, or where it cannot be sent to another process, its words."""
    try:
        copy.copy(error)  # made anew as it will be over there
    except Exception:  # whatever its class does
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


@contextlib.contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise RankLost(
            f"a process that worked with this one has ended, killed or out of memory ({reason})",
            "run the same command again: it goes on from the last checkpoint",
        ) from error
