"""Whether what is read back has the types that were written: the files of a results folder may be edited or damaged.

What is missing or more is no mistake where a default or another version explains it. A figure that is no number is one,
whatever else could be read: a file with a mistake is ignored as a whole. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from detrbench.results import records
from detrbench.words import shown


class Environment(TypedDict, total=False):
    """What is read of an environment; it holds more, which is only shown."""

    gpus: list[str] | None
    cpu: str | None
    cores: int | None


class Envelope(TypedDict, total=False):
    """What stands around records."""

    created: str
    seconds: float
    device: str
    weights: str
    official: str
    taken_for: str
    beside: dict[str, dict[str, Any]]
    count_keys: dict[str, str]
    counted_for: dict[str, str]
    environment: Environment
    records: dict[str, dict[str, Any]]


class MeasureState(TypedDict, total=False):
    """What became of one measure."""

    state: str
    why: str | None


class Status(TypedDict, total=False):
    """status.json."""

    cell: str | None
    updated: str
    measures: dict[str, MeasureState]


class Description(TypedDict, total=False):
    """cell.yaml."""

    id: str
    index: int
    model: str | None
    options: dict[str, Any]
    complexity_options: dict[str, Any]
    row: dict[str, Any] | None
    note: str | None
    protocols: list[str]
    checkpoint: str | None
    published_only: bool
    weights_of: str | None
    seed_of: str | None
    source: str | None
    published: str | None
    official: str | None
    resolved: dict[str, Any]


RECORDS: Mapping[str, type] = {
    "complexity": records.Complexity,
    "training": records.TrainingHistory,
    "accuracy": records.Accuracy,
    "dam": records.DamCorrelation,
    "queries": records.QueryGathering,
    "pictures": records.Pictures,
    "memory": records.Memory,
    "latency": records.Latency,
}


def envelope_misfit(envelope: Mapping[str, Any], measure: str) -> str | None:
    """What is wrong with an envelope or one of its records, in words; None where nothing is."""
    wrong = misfit(envelope, Envelope)
    if wrong is None and measure in RECORDS:
        hints = _hints(RECORDS[measure])
        wrong = _first(_entries(f"records.{name}", found, hints) for name, found in envelope["records"].items())
    return wrong


def misfit(value: Any, hint: Any, name: str = "") -> str | None:
    """How a value differs from a type, in words, with its place; None where it fits.

    Args:
        value: as JSON or YAML has it.
        hint: a type, or a dataclass or TypedDict in whose place a mapping is expected.
        name: the place, for the words.
    """
    if hint is Any:
        return None
    if dataclasses.is_dataclass(hint) or typing.is_typeddict(hint):
        needed = _needed(hint)
        if not isinstance(value, dict) or not needed <= value.keys():
            return _expected(name, f"a mapping with {', '.join(sorted(needed))}" if needed else "a mapping", value)
        return _entries(name, value, _hints(hint))
    outer, inner = typing.get_origin(hint), typing.get_args(hint)
    if outer in (types.UnionType, typing.Union):
        problems = [misfit(value, each, name) for each in inner]
        return None if None in problems else problems[0]
    if outer is list:
        if not isinstance(value, list):
            return _expected(name, "a list", value)
        return _first(misfit(each, inner[0], f"{name}[{i}]") for i, each in enumerate(value))
    if outer is dict:
        if not isinstance(value, dict):
            return _expected(name, "a mapping", value)
        return _first(misfit(each, inner[1], f"{name}.{key}") for key, each in value.items())
    return None if _is(value, hint) else _expected(name, _WORDS[hint], value)


_WORDS = {float: "a number", int: "a whole number", str: "a text", bool: "true or false", types.NoneType: "nothing"}


def _is(value: Any, kind: type) -> bool:
    """Whether a plain value is of a type; a number has to be one that can be computed with, and true is none."""
    if kind is float:
        return value is None or (_is_number(value) and math.isfinite(value))  # NaN is written as null
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


_LARGEST = 1e300  # an integer beyond it is no float


def _entries(name: str, found: Mapping[str, Any], hints: Mapping[str, Any]) -> str | None:
    """The first misfit among the keys that have a type."""
    return _first(misfit(found[key], hint, f"{name}.{key}".lstrip(".")) for key, hint in hints.items() if key in found)


@functools.cache
def _hints(kind: type) -> Mapping[str, Any]:
    return typing.get_type_hints(kind)


@functools.cache
def _needed(kind: type) -> frozenset[str]:
    """Fields of a dataclass without a default."""
    if not dataclasses.is_dataclass(kind):
        return frozenset()
    missing = dataclasses.MISSING
    return frozenset(f.name for f in dataclasses.fields(kind) if f.default is missing and f.default_factory is missing)


def _expected(name: str, expected: str, value: Any) -> str:
    return f"{name}: expected {expected}, got {shown(value)}".lstrip(": ")


def _first(problems: Iterable[str | None]) -> str | None:
    return next((problem for problem in problems if problem is not None), None)
