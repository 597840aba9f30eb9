"""YAML 1.2 with positions: what a suite's author writes is what detrbench reads, and every mistake has a line.

PyYAML follows YAML 1.1, where `1e-4` is a string, `no` is False, `12:30` is 750 and the last of two equal keys wins.
Here `1e-4` is a float, `no` and `12:30` are strings, and equal keys are an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from detrbench.errors import SuiteError
from detrbench.files import is_special

KeyPath = tuple[str | int, ...]

_MAX_NODES = 100_000  # aliases of aliases could otherwise grow a small file without bound


class _Loader(yaml.SafeLoader):
    """SafeLoader's parser with the scalar rules of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  (as in the base)


class _FastLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The same with libyaml's parser, where PyYAML has it: twenty times as fast."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


_RULES = [
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
]
for _tag, _pattern, _first in _RULES:
    _Loader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), _first)


@dataclass(frozen=True)
class Document:
    """A parsed file. `marks` gives the 1-based (line, column) of each key path, `values` that of what stands there."""

    value: Any
    path: str
    marks: dict[KeyPath, tuple[int, int]]
    values: dict[KeyPath, tuple[int, int]] = field(default_factory=dict)

    def error(self, key: KeyPath, problem: str, hint: str | None = None) -> SuiteError:
        """The error `file:line:col: key: problem`; where the key itself is missing, at the nearest parent."""
        at = key
        while at and at not in self.marks:
            at = at[:-1]
        line, column = self.marks.get(at, (1, 1))
        name = f"{dotted(key)}: " if key else ""
        return SuiteError(f"{self.path}:{line}:{column}: {name}{problem}", hint)


def dotted(key: KeyPath) -> str:
    """`("variants", 0, "id")` as `variants[0].id`."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")


def load(path: Path) -> Document:
    """Reads one YAML file; raises SuiteError with file, line and column."""
    if is_special(path):
        raise SuiteError(f"{path}: cannot be read: not a regular file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SuiteError(f"{path}:1:1: expected UTF-8 text, got byte 0x{error.object[error.start]:02x}") from error
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read: {error.strerror}") from error
    return parse(text, str(path))


def parse(text: str, path: str = "<text>") -> Document:
    """Parses one YAML document; `path` is what error messages call it."""
    try:
        node = _compose(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        raise SuiteError(f"{path}:{where}: not valid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise SuiteError(f"{path}:1:1: not valid YAML: {str(error).splitlines()[0]}") from error
    builder = _Builder(path)
    value = None if node is None else builder.build(node, ())
    return Document(value, path, builder.marks, builder.values)


def _compose(text: str) -> yaml.Node | None:
    try:
        fast: yaml.Node | None = yaml.compose(text, Loader=_FastLoader)
        return fast
    except yaml.YAMLError as error:
        if "nesting" in str(error):  # over which the other loader would spend hours
            raise
        return yaml.compose(text, Loader=_Loader)  # says more of what is wrong, and in the same words everywhere


def dump(value: Any) -> str:
    """A mapping or list as YAML, keys in their order."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(value, Dumper=dumper, sort_keys=False, allow_unicode=True))


def parse_value(text: str) -> Any:
    """One value as typed on a command line: `0.3`, `[1, 2]`, `true`, `abc`."""
    return parse(text, repr(text)).value


class _Builder:
    def __init__(self, path: str) -> None:
        self.path = path
        self.marks: dict[KeyPath, tuple[int, int]] = {}
        self.values: dict[KeyPath, tuple[int, int]] = {}
        self.open: set[int] = set()  # nodes being built: an alias to one of them would never end
        self.count = 0

    def build(self, node: yaml.Node, key: KeyPath) -> Any:
        self.marks.setdefault(key, _position(node))
        line, column = _position(node)
        quoted = isinstance(node, yaml.ScalarNode) and node.style in ("'", '"')
        self.values[key] = (line, column + quoted)  # of the first character of the text itself
        self.count += 1
        if self.count > _MAX_NODES:
            raise self._error(node, f"expected at most {_MAX_NODES} values, got more (aliases?)")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if not node.tag.endswith((":map", ":seq")):
            raise self._error(node, f"expected a plain value, got the tag {node.tag!r}")
        if id(node) in self.open:
            raise self._error(node, "an alias refers to a value that contains it")
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.build(item, (*key, i)) for i, item in enumerate(node.value)]
            return dict(self._pairs(node, key))
        finally:
            self.open.remove(id(node))

    def _pairs(self, node: yaml.Node, key: KeyPath) -> Iterator[tuple[str, Any]]:
        seen: dict[str, int] = {}
        for name_node, value_node in node.value:
            if not isinstance(name_node, yaml.ScalarNode):
                raise self._error(name_node, "expected a plain key, got a list or mapping")
            name = name_node.value
            if name in seen:
                raise self._error(name_node, f"{dotted((*key, name))}: given twice, first in line {seen[name]}")
            seen[name] = _position(name_node)[0]
            path = (*key, name)
            self.marks[path] = _position(name_node)
            yield name, self.build(value_node, path)

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text, kind = node.value, node.tag.rpartition(":")[2]
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        try:
            if kind == "int":
                return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
            if kind == "float":
                return float(re.sub(r"\.(inf|nan)$", r"\1", text.lower()))
        except ValueError as error:
            raise self._error(node, f"expected a number, got {text!r}") from error
        if kind == "str":
            return text
        raise self._error(node, f"expected a plain value, got the tag {node.tag!r}")

    def _error(self, node: yaml.Node, problem: str) -> SuiteError:
        line, column = _position(node)
        return SuiteError(f"{self.path}:{line}:{column}: {problem}")


def _position(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1
