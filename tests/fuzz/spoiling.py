"""Strategies that break what was whole: values of a document, the text of a file, its bytes."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from typing import Any

import yaml
from hypothesis import strategies as st

STEERING = "a\x1b[31m\n::error::\u202e|<b>&$\\x"
# What somebody's file could hold in place of any value.
NASTY: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    3,
    0.5,
    -0.0,
    1e308,
    1e-320,
    10**18,
    2**63,
    10**400,
    math.nan,
    math.inf,
    -math.inf,
    "",
    " ",
    "0",
    "1e-4",
    "nan",
    "x" * 300,
    STEERING,
    "\x00",
    "\ud800",
    "../../escaped",
    "/dev/null/x",
    "~nobody",
    "{keep_ratio}",
    "{0.__class__}",
    "%s%n",
    "=1+1",
    [],
    [[]],
    [None],
    [1, 2, 3, 4],
    [0.1, 0.1],
    {},
    {"": 0},
    {"a": {"b": [{}]}},
]
nasty = st.sampled_from(NASTY) | st.integers() | st.floats() | st.text(max_size=20)


def places(document: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value below a document's top."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield (*at, key)
            yield from places(value, (*at, key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield (*at, index)
            yield from places(value, (*at, index))


@st.composite
def spoiled(draw: st.DrawFn, document: Any, most: int = 3) -> Any:
    """The document with up to `most` values replaced, removed, doubled or renamed."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, most))):
        found = list(places(document))
        if not found:
            return document
        *way, last = draw(st.sampled_from(found))
        inside = document
        for step in way:
            inside = inside[step]
        how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "double", "rename"]))
        if how == "replace":
            inside[last] = copy.deepcopy(draw(nasty))  # which a later change may change
        elif how == "remove":
            del inside[last]
        elif isinstance(inside, list):
            inside.append(copy.deepcopy(inside[last]))
        elif how == "double":
            inside[f"{last}2"] = copy.deepcopy(inside[last])
        else:
            inside[draw(st.sampled_from([str(last).upper(), "", " ", STEERING, "key"]))] = inside.pop(last)
    return document


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """A file that was cut, or of which some bytes are others, more, or gone."""
    how = draw(st.sampled_from(["cut", "flip", "insert", "drop", "other"]))
    at = draw(st.integers(0, len(content)))
    if how == "cut":
        return content[:at]
    if how == "flip":
        at = min(at, max(len(content) - 1, 0))
        return content[:at] + bytes([draw(st.integers(0, 255))]) + content[at + 1 :]
    if how == "insert":
        return content[:at] + draw(st.binary(min_size=1, max_size=12)) + content[at:]
    if how == "drop":
        return content[:at] + content[at + draw(st.integers(1, 40)) :]
    return draw(st.binary(max_size=40) | st.sampled_from([b"\xff\xfe", b"\xef\xbb\xbf", b"[" * 5000, b"{" * 5000]))


@st.composite
def json_file(draw: st.DrawFn, document: Any) -> bytes:
    """A JSON file whose document is spoiled, or sometimes its bytes."""
    if draw(st.integers(0, 4)) == 0:
        return draw(damaged(json.dumps(document).encode()))
    return json.dumps(draw(spoiled(document))).encode()


SNIPPETS = [
    "\t",
    "&a [*a]",
    "*a",
    "!!python/object:os.system x",
    "!!binary x",
    "<<: {a: 1}",
    "---\n",
    "...\n",
    "? [a]\n: b",
    "|",
    ">-",
    "%YAML 9.9\n",
    "@",
    "`",
    '"',
    "'",
    "{",
    "]",
    ": ",
    "- ",
    "#",
    "\u2028",
    "[" * 3000,
    "2026-01-01",
    "0o9",
    "1_000",
    "12:30",
]


@st.composite
def yaml_text(draw: st.DrawFn, document: Any) -> bytes:
    """A YAML file whose document is spoiled, or in whose text something stands that YAML gives a meaning."""
    how = draw(st.integers(0, 5))
    if how == 0:
        return draw(damaged(yaml.safe_dump(document, sort_keys=False).encode()))
    if how == 1:
        text = yaml.safe_dump(document, sort_keys=False, default_flow_style=draw(st.booleans()))
        at = draw(st.integers(0, len(text)))
        return (text[:at] + draw(st.sampled_from(SNIPPETS)) + text[at:]).encode()
    return yaml.safe_dump(draw(spoiled(document)), sort_keys=False).encode("utf-8", "backslashreplace")
