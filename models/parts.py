"""What a part is, and the register of all parts by kind and name. Imports no torch.

A detector is one choice for each kind:

    backbone -> neck -> encoder -> queries -> decoder -> heads      (always)
    one_to_many, denoising, auxiliary_decoder                       (training only)

`catalogue` enters the parts that come with detrbench; `register` adds a user's own under the same rules.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from detrbench.errors import EnvironmentLacking, UsageError, unknown_name
from detrbench.models.options import Option, Relation

KINDS = ("backbone", "neck", "encoder", "queries", "decoder", "heads")
# Kinds that only training runs, with the choice that holds where a variant names none.
TRAINING_KINDS = {"one_to_many": "none", "denoising": "none", "auxiliary_decoder": "none"}
ALL_KINDS = (*KINDS, *TRAINING_KINDS)


def all_levels(options: Mapping[str, Any]) -> int:
    """The memory of most encoders has every level of the pyramid."""
    return options["num_levels"]


def memory_width(options: Mapping[str, Any]) -> int:
    """Most encoders take tokens as wide as their memory."""
    width: int = options["hidden_dim"]
    return width


@dataclass(frozen=True)
class Part:
    """One choice for one place in a detector.

    Args:
        kind: one of `ALL_KINDS`.
        name: how suites and `models.create` call it.
        factory: "package.module:Class"; called as `Class(dimensions, **options)`. It is imported only when a detector
            is built, so that listing parts stays instant.
        summary: one line for `detrbench list parts`.
        options: what it takes beside the detector's common dimensions.
        relations: what its options must be beside each other and beside the common ones.
        gives: what other parts can build on, beyond what its kind always gives.
        memory_levels: of an encoder, how many levels its memory has, from all options of the detector.
        token_width: of an encoder, how wide the neck's tokens are, from all options of the detector.
        needs: what some other part of the detector must give, or the combination is refused.
    """

    kind: str
    name: str
    factory: str | Callable[..., Any]
    summary: str
    options: Mapping[str, Option] = field(default_factory=dict)
    gives: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    relations: tuple[Relation, ...] = ()
    memory_levels: Callable[[Mapping[str, Any]], int] = all_levels
    token_width: Callable[[Mapping[str, Any]], int] = memory_width

    def load(self) -> Callable[..., Any]:
        """The class behind `factory`, imported now."""
        if callable(self.factory):
            return self.factory
        module, _, attribute = self.factory.partition(":")
        return getattr(importlib.import_module(module), attribute)


_PARTS: dict[tuple[str, str], Part] = {}


def register_part(part: Part) -> None:
    """Add a part; a name that is taken is an error."""
    if part.kind not in ALL_KINDS:
        raise unknown_name("kind of part", part.kind, ALL_KINDS)
    if (part.kind, part.name) in _PARTS:
        raise UsageError(f"{part.kind} {part.name!r} is registered already")
    _PARTS[part.kind, part.name] = part


@functools.cache
def load_plugins() -> None:
    """Import what installed packages name in the group `detrbench.models`; they register parts and variants.

    Raises:
        EnvironmentLacking: one of them cannot be imported, or what it registers is refused.
    """
    for entry in entry_points(group="detrbench.models"):
        try:
            entry.load()
        except Exception as error:  # code of others: nobody knows what it raises
            raise _broken(entry, error) from error


def _broken(entry: EntryPoint, error: Exception) -> EnvironmentLacking:
    package = entry.dist.name if entry.dist else entry.value
    why = (str(error).strip().splitlines() or ["no message"])[0]
    return EnvironmentLacking(
        f"plug-in {entry.name!r} of the package {package!r} cannot be loaded: {type(error).__name__}: {why}",
        hint=f"mend it, or do without it: pip uninstall {package}",
    )


def plugin_names() -> list[str]:
    """`name (package version)` of all plug-ins that are installed, without loading them."""
    found = entry_points(group="detrbench.models")
    return sorted(f"{entry.name} ({entry.dist.name} {entry.dist.version})" for entry in found if entry.dist)


def get_part(kind: str, name: str) -> Part:
    """The part of that kind and name; unknown names raise `UsageError` with the nearest match."""
    load_plugins()
    if (kind, name) not in _PARTS:
        raise unknown_name(kind, name, part_names(kind))
    return _PARTS[kind, name]


def part_names(kind: str) -> list[str]:
    """Sorted names of one kind, those of plug-ins included."""
    load_plugins()
    return sorted(name for part_kind, name in _PARTS if part_kind == kind)


def all_parts() -> list[Part]:
    """Every part, those of plug-ins included, in the order a detector runs them."""
    load_plugins()
    return sorted(_PARTS.values(), key=lambda part: (ALL_KINDS.index(part.kind), part.name))
