"""Pydantic's complaints as one line: `file:line:col: key: expected X, got Y`, with "did you mean" for unknown keys."""

from __future__ import annotations

import json
import types
import typing
from typing import Any

from pydantic import BaseModel, ValidationError

from detrbench.errors import SuiteError, nearest
from detrbench.yaml12 import Document, KeyPath

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def explain(error: ValidationError, document: Document, model: type[BaseModel]) -> SuiteError:
    """The first complaint, at its line; an unknown key is told before the missing one it was meant to be."""
    found = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")[0]
    key: KeyPath = tuple(found["loc"])
    kind, context = found["type"], found.get("ctx", {})
    if kind == "extra_forbidden":
        known = _keys_at(model, key[:-1])
        match = nearest(str(key[-1]), known)
        hint = f"did you mean {match!r}? " if match else ""
        return document.error(key, "unknown key", f"{hint}keys here: {', '.join(known)}")
    if kind == "missing":
        return document.error(key, "expected this key, got nothing")
    return document.error(key, f"expected {_expected(kind, context, found['msg'])}, got {_short(found['input'])}")


def _expected(kind: str, context: dict[str, Any], message: str) -> str:
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    if kind == "literal_error":
        return str(context["expected"])
    if kind == "greater_than":
        return f"a number above {context['gt']}"
    if kind == "greater_than_equal":
        return f"at least {context['ge']}"
    if kind == "less_than_equal":
        return f"at most {context['le']}"
    if kind in ("too_short", "string_too_short"):
        return f"at least {context.get('min_length')}"
    if kind == "string_pattern_mismatch":
        return f"a name of letters, digits, '_', '.', '-' ({context['pattern']})"
    return message.removeprefix("Value error, ")


def _short(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _keys_at(model: type[BaseModel], key: KeyPath) -> list[str]:
    """The keys that the mapping at `key` may have."""
    here: Any = model
    for part in key:
        if isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(str(part))
            here = field.annotation if field else None
        else:  # inside a list or mapping: its values' type
            here = typing.get_args(here)[-1] if typing.get_args(here) else None
        if isinstance(here, types.UnionType) or typing.get_origin(here) is typing.Union:
            here = next((a for a in typing.get_args(here) if a is not type(None)), None)
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []
