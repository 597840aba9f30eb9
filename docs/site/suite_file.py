"""What a suite's YAML may say: read from the schema that checks it, and from the docstrings that explain it."""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any, Literal, Union

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from tables import code, table

from detrbench.data.spec import DataSpec
from detrbench.measures import CHOSEN
from detrbench.suite.schema import Report, Scale, SharedScales, Suite, SuiteVariant
from detrbench.training.recipe import BOUNDS, Recipe

MODELS: tuple[type[BaseModel], ...] = (Suite, SuiteVariant, Scale, Report, SharedScales)
_KEY = re.compile(r"^( *)([a-z]\w*(?:, [a-z]\w*)*): (.*)$")


def described(record: type) -> dict[str, str]:
    """What a docstring says of each key: lines `name: words`, gone on with by lines that stand further in."""
    found: dict[str, str] = {}
    names: list[str] = []
    depth = 0
    for line in (inspect.getdoc(record) or "").splitlines():
        key, inset = _KEY.match(line), len(line) - len(line.lstrip())
        if key and not (names and inset > depth):
            names, depth = key[2].split(", "), len(key[1])
            found.update(dict.fromkeys(names, key[3]))
        elif names and line.strip() and inset > depth:
            found.update({name: f"{found[name]} {line.strip()}" for name in names})
        else:
            names = []
    return found


def meaning(model: type[BaseModel]) -> dict[str, str]:
    """What each key of a mapping means; a scale's keys are those of data and recipe too."""
    words = described(model)
    if model is not Scale:
        return words
    data = described(DataSpec)
    return data | {"data_seed": data["seed"]} | described(Recipe) | words


def keys() -> str:
    """A section for each mapping of the schema."""
    return "\n\n".join(_section(model) for model in MODELS)


def _section(model: type[BaseModel]) -> str:
    words = meaning(model)
    rows = (
        [code(name), _values(model, name, field), default(field), words[name]]
        for name, field in model.model_fields.items()
    )
    first = (inspect.getdoc(model) or "").partition("\n\n")[0]
    return f"## {model.__name__}\n\n{first}\n\n{table(('key', 'values', 'default', 'means'), rows)}"


def _values(model: type[BaseModel], name: str, field: FieldInfo) -> str:
    """The values of a key; those of a recipe have bounds of their own."""
    if model is Scale and name in BOUNDS:
        return str(BOUNDS[name])
    return kind(field.annotation, *field.metadata)


def bounds(metadata: Iterable[Any]) -> Iterator[str]:
    """What pydantic's metadata say of a value, in words; a `Field` has its own."""
    for each in metadata:
        yield from bounds(getattr(each, "metadata", ()))
        yield from (f"{words} {getattr(each, key)}" for key, words in _BOUNDS if hasattr(each, key))


_BOUNDS = (("ge", "at least"), ("le", "at most"))


def kind(hint: Any, *metadata: Any) -> str:
    """The values of a type, in words, with the bounds that its metadata say."""
    return " ".join([_kind(hint), " and ".join(bounds(metadata))]).strip()


def _kind(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return kind(*arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(kind(each) for each in arguments)
    if origin is Literal:
        return " or ".join(code(each) for each in arguments)
    if origin is list:
        return f"a list, each {kind(arguments[0])}"
    if origin is dict:
        return f"names, each with {kind(arguments[1])}"
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return f"a [{hint.__name__}](#{hint.__name__.lower()})"
    return _KINDS[hint]


_KINDS = {
    str: "a text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null", Any: "any value"
}  # fmt: skip


def default(field: FieldInfo) -> str:
    """The value that holds where a key is not written."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel) or value in ({}, []):
        return ""
    return "all" if value == list(CHOSEN) else code(yaml_of(value))


def yaml_of(value: Any) -> str:
    """A value as a suite writes it."""
    return json.dumps(value)
