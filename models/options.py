"""What an option is: its default, what it means and which values it takes. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from detrbench.errors import UsageError, nearest
from detrbench.words import shown

_LARGEST = 2**63 - 1  # what a tensor's size or a seed can be


class Values(Protocol):
    """The values that an option takes; `str` of it completes "expected ..."."""

    def allow(self, value: Any) -> bool:
        """Whether this is one of them."""


@dataclass(frozen=True)
class Anything:
    """Any value but numbers that are not finite."""

    def allow(self, value: Any) -> bool:
        """Not NaN, not infinite."""
        return not isinstance(value, float) or math.isfinite(value)

    def __str__(self) -> str:
        return "a value (numbers must be finite)"


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def allow(self, value: Any) -> bool:
        """A bool; 0 and 1 are none."""
        return isinstance(value, bool)

    def __str__(self) -> str:
        return "true or false"


@dataclass(frozen=True)
class Text:
    """Any string."""

    def allow(self, value: Any) -> bool:
        """A str."""
        return isinstance(value, str)

    def __str__(self) -> str:
        return "a text"


@dataclass(frozen=True)
class Whole:
    """Whole numbers, bounds included."""

    minimum: int | None = None
    maximum: int | None = None

    def allow(self, value: Any) -> bool:
        """An int between the bounds; true and false are none."""
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _LARGEST:
            return False
        return (self.minimum is None or value >= self.minimum) and (self.maximum is None or value <= self.maximum)

    def __str__(self) -> str:
        if self.maximum is not None:
            return f"a whole number from {self.minimum} to {self.maximum}"
        return "a whole number" if self.minimum is None else f"a whole number, {self.minimum} or more"


@dataclass(frozen=True)
class Real:
    """Finite numbers; `minimum` and `maximum` are among them, `above` and `below` are not."""

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None

    def allow(self, value: Any) -> bool:
        """A finite int or float between the bounds."""
        if not isinstance(value, int | float) or isinstance(value, bool) or not Anything().allow(value):
            return False
        if abs(value) > _LARGEST:
            return False
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        bounds = [
            f"{words} {bound:g}"
            for words, bound in (
                ("at least", self.minimum),
                ("above", self.above),
                ("at most", self.maximum),
                ("below", self.below),
            )
            if bound is not None
        ]
        return " ".join(["a number", " and ".join(bounds)]) if bounds else "a number"


class OneOf:
    """A few values by name."""

    def __init__(self, *choices: Any) -> None:
        self.choices = choices

    def allow(self, value: Any) -> bool:
        """One of them, and of its type: 4.0 and True are not among 1 and 4."""
        return any(type(value) is type(choice) and value == choice for choice in self.choices)

    def __str__(self) -> str:
        *others, last = map(repr, self.choices)
        return f"{', '.join(others)} or {last}" if others else last


@dataclass(frozen=True)
class ListOf:
    """Lists, not empty; of so many elements where a length is given."""

    each: Values
    length: int | None = None

    def allow(self, value: Any) -> bool:
        """A list whose elements are all allowed."""
        if not isinstance(value, list) or not value or (self.length is not None and len(value) != self.length):
            return False
        return all(self.each.allow(element) for element in value)

    def __str__(self) -> str:
        return f"a list{'' if self.length is None else f' of {self.length}'}, each {self.each}"


@dataclass(frozen=True)
class Maybe:
    """None, or one of these values."""

    values: Values

    def allow(self, value: Any) -> bool:
        """None too."""
        return value is None or self.values.allow(value)

    def __str__(self) -> str:
        return f"{self.values}, or null"


_BY_TYPE: dict[type, Values] = {
    bool: Flag(),
    int: Whole(),
    float: Real(),
    str: Text(),
    list: ListOf(Anything()),
}


@dataclass(frozen=True)
class Option:
    """One setting of a part.

    Args:
        default: the value that holds where nobody names one.
        doc: what it means; the one place that says so.
        values: those it takes; without them, those of the default's type.
    """

    default: Any
    doc: str
    values: Values | None = None

    def __post_init__(self) -> None:
        if not self.accepts.allow(self.default):
            raise UsageError(f"default of an option ({self.doc}): expected {self.accepts}, got {self.default!r}")

    @property
    def accepts(self) -> Values:
        """The values that it takes."""
        return self.values or _BY_TYPE.get(type(self.default), Anything())

    def check(self, name: str, value: Any) -> None:
        """Raises UsageError for a value that it does not take."""
        if not self.accepts.allow(value):
            raise self.refusal(name, value, str(self.accepts))

    def refusal(self, name: str, value: Any, expected: str) -> UsageError:
        """The error for such a value, with what the option means and the choice that was probably meant."""
        choices = self.accepts.choices if isinstance(self.accepts, OneOf) else ()
        named = [choice for choice in choices if isinstance(choice, str)]
        match = nearest(value, named) if isinstance(value, str) else None
        hint = f"did you mean {match!r}? " if match else ""
        return UsageError(f"option {name!r}: expected {expected}, got {shown(value)}", hint=f"{hint}{name}: {self.doc}")

    def converted(self, value: Any) -> Any:
        """A whole number as a float where the default is one, so that 1 and 1.0 are one setting."""
        whole = isinstance(value, int) and not isinstance(value, bool)
        return float(value) if isinstance(self.default, float) and whole else value


@dataclass(frozen=True)
class Relation:
    """What an option must be beside the others of a detector.

    Args:
        option: its name.
        holds: whether the options, by name, fit.
        expected: what this one must be beside the others; completes "expected ...".
    """

    option: str
    holds: Callable[[Mapping[str, Any]], bool]
    expected: Callable[[Mapping[str, Any]], str]
