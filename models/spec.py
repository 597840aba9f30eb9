"""From a name and overrides to a complete, checked description of a detector. Imports no torch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from detrbench.errors import UsageError, nearest, unknown_name
from detrbench.models.catalogue import COMMON, COMMON_RELATIONS, CRITERION
from detrbench.models.options import Option
from detrbench.models.parts import ALL_KINDS, TRAINING_KINDS, all_parts, get_part, part_names
from detrbench.models.zoo import Variant, get_variant, of_backbone
from detrbench.words import shown


@dataclass(frozen=True)
class DetectorSpec:
    """A detector, fully resolved: the part chosen for each kind and every option's value.

    `variant` is the name it came from; `parts` maps kind to part name; `options` holds each option that a chosen
    part or the detector itself takes, and nothing else.
    """

    variant: str
    parts: Mapping[str, str]
    options: Mapping[str, Any]

    def options_of(self, kind: str) -> dict[str, Any]:
        """The options of the part chosen for `kind`."""
        return {name: self.options[name] for name in get_part(kind, self.parts[kind]).options}

    @property
    def common(self) -> dict[str, Any]:
        """The options that every part reads."""
        return {name: self.options[name] for name in COMMON}


def resolve(name: str, overrides: Mapping[str, Any]) -> DetectorSpec:
    """Apply overrides to a named variant.

    Args:
        name: a name of `models.names()`.
        overrides: part choices (`encoder="sparse"`), options (`keep_ratio=0.2`), and `source`, which picks the
            conventions of one code base where the official codes of a model differ.

    Raises:
        UsageError: unknown variant, part, source or option, or a value that the option does not take, by itself or
            beside the others.
    """
    variant = get_variant(name)
    overrides = dict(overrides)
    settings = dict(variant.options)
    source = overrides.pop("source", None)
    if source is not None:
        if _name(source, "source") not in variant.sources:
            raise unknown_name(f"source of {name}", source, variant.sources)
        settings |= variant.sources[source]

    parts = {**TRAINING_KINDS, **variant.parts}
    for kind in ALL_KINDS:
        if kind in overrides:
            parts[kind] = get_part(kind, _name(overrides.pop(kind), kind)).name
    _check_fit(name, parts)
    defaults = _defaults(parts)
    # Options of a part that was replaced go with it; whatever else does not fit is the caller's mistake.
    values = {key: option.default for key, option in defaults.items()}
    values |= {key: value for key, value in of_backbone(settings, parts["backbone"]).items() if key in defaults}
    for key, value in overrides.items():
        if key not in defaults:
            raise _unknown_option(name, key, parts, defaults)
        values[key] = value
    _check_values(parts, defaults, values)
    values |= {key: defaults[key].converted(value) for key, value in overrides.items()}
    return DetectorSpec(variant.name, parts, values)


def override_names() -> set[str]:
    """Every name that overrides of some variant may have."""
    return {"source", *COMMON, *CRITERION, *ALL_KINDS, *(option for part in all_parts() for option in part.options)}


def _name(value: Any, of: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{of}: expected a name, got {shown(value)}")
    return value


def _defaults(parts: Mapping[str, str]) -> dict[str, Option]:
    defaults = COMMON | CRITERION
    for kind in ALL_KINDS:
        defaults |= get_part(kind, parts[kind]).options
    return defaults


def _check_fit(name: str, parts: Mapping[str, str]) -> None:
    """Refuse a part that needs what no other part gives."""
    chosen = [get_part(kind, parts[kind]) for kind in ALL_KINDS]
    given = frozenset().union(*(part.gives for part in chosen))
    for part in chosen:
        for need in sorted(part.needs - given):
            givers = [
                f"{kind}={other}"
                for kind in ALL_KINDS
                for other in part_names(kind)
                if need in get_part(kind, other).gives
            ]
            raise UsageError(
                f"{name}: {part.kind} {part.name!r} needs {need}, which no other part of this detector gives",
                hint=f"choose one of {', '.join(givers)}",
            )


def _unknown_option(name: str, key: str, parts: Mapping[str, str], known: Mapping[str, Option]) -> UsageError:
    owners = [f"{part.kind} {part.name!r}" for part in all_parts() if key in part.options]
    if owners:
        kind = owners[0].split()[0]
        return UsageError(
            f"{name}: option {key!r} belongs to {' and '.join(owners)}, but this detector has {kind} {parts[kind]!r}",
            hint=f"choose that part too, or leave {key!r} out",
        )
    match = nearest(key, [*known, *ALL_KINDS])
    hint = f"did you mean {match!r}? " if match else ""
    return UsageError(f"{name}: unknown option {key!r}", hint=f"{hint}options: {', '.join(sorted(known))}")


def _check_values(parts: Mapping[str, str], options: Mapping[str, Option], values: Mapping[str, Any]) -> None:
    """Refuse a value that its option does not take, then one that does not fit the others."""
    for key, option in options.items():
        option.check(key, values[key])
    relations = itertools.chain(COMMON_RELATIONS, *(get_part(kind, parts[kind]).relations for kind in ALL_KINDS))
    for relation in relations:
        if not relation.holds(values):
            key = relation.option
            raise options[key].refusal(key, values[key], relation.expected(values))


__all__ = ["DetectorSpec", "Variant", "override_names", "resolve"]
