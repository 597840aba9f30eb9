"""What can go wrong, as one tree; the command line turns each class into its exit code.

    DetrbenchError            3  internal
    ├── Findings              1  the work was done and something is wrong (a budget, a cell, a data set)
    │   ├── Diverged             training left the range of finite numbers
    │   ├── NotFinite            a detector's predictions did
    │   └── Damaged              a file of the results folder is not what was written
    ├── UsageError            2  the user's input: command line, YAML, paths, checkpoints
    │   ├── SuiteError           a suite's YAML: file, line, column, key
    │   ├── DataError            a data set: file and id
    │   ├── CheckpointError      weights that do not fit, are truncated, or are not weights
    │   └── FetchError           weights that do not come: no network, a dead link, another file than was released
    ├── EnvironmentLacking    4  this machine cannot do it (no GPU, no compiler, no memory, full disk)
    ├── NothingSelected       5  a filter that leaves nothing
    └── Inconclusive          6  measured, and nobody can know

An interrupted command exits with 130, a terminated one with 143.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar


class DetrbenchError(Exception):
    """Base of all errors that detrbench raises on purpose.

    Args:
        message: what is wrong and where, with what was expected and what was found; one line.
        hint: what the user can type or change next; one line.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Findings(DetrbenchError):
    exit_code = 1


class Diverged(Findings):
    """`batch` holds the image ids and loss terms of the micro-batch that did it, where they are known."""

    batch: Mapping[str, Any] = MappingProxyType({})


class NotFinite(Findings):
    pass


class Damaged(Findings):
    pass


class UsageError(DetrbenchError):
    exit_code = 2


class SuiteError(UsageError):
    pass


class DataError(UsageError):
    pass


class CheckpointError(UsageError):
    pass


class FetchError(UsageError):
    pass


class EnvironmentLacking(DetrbenchError):
    exit_code = 4


class NothingSelected(DetrbenchError):
    exit_code = 5


class Inconclusive(DetrbenchError):
    exit_code = 6


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a mistyped one most resembles, or None."""
    return next(iter(_close(name, list(known))), None)


def _close(name: str, known: list[str]) -> list[str]:
    """Up to five known names: those that begin so, then those that a mistyped one resembles, the nearest first."""
    begun = sorted((each for each in known if name and each.startswith(name)), key=len)
    return list(dict.fromkeys([*begun, *difflib.get_close_matches(name, known, n=5, cutoff=0.5)]))[:5]


def unknown_name(kind: str, name: str, known: Iterable[str], listing: str | None = None) -> UsageError:
    """The error for a name that is not in `known`: the names it resembles, and the others where they are few.

    Args:
        kind: what the names are names of.
        name: what was given.
        known: all names that there are.
        listing: the command that lists them.
    """
    known = sorted(known)
    close = _close(name, known)
    hint = f"did you mean {close[0]!r}? " if close else ""
    if len(known) <= _FEW:
        hint += f"known: {', '.join(known)}"
    else:
        hint += f"also near: {', '.join(close[1:])}" if close[1:] else f"{len(known)} are known"
        hint += f"; all: {listing}" if listing else ""
    return UsageError(f"unknown {kind} {name!r}", hint=hint)


_FEW = 20  # names that one reads rather than searches
