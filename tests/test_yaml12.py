"""YAML 1.2 rules, duplicate keys, positions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from detrbench import yaml12
from detrbench.errors import SuiteError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("4.0e-4", 4e-4),
        (".5", 0.5),
        ("12:30", "12:30"),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("010", 10),
        ("0o10", 8),
        ("0x10", 16),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("-.inf", -math.inf),
        ("[0.1, 2, a]", [0.1, 2, "a"]),
        ("=", "="),
    ],
)
def test_values_are_read_as_yaml_1_2(text: str, value: Any) -> None:
    read = yaml12.parse_value(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("a: 1\na: 2\n", "f.yaml:2:1", "given twice, first in line 1"),
        ("b:\n  a: 1\n  c: 2\n  a: 3\n", "f.yaml:4:3", "b.a: given twice"),
        ("a: [1\n", "f.yaml:2:1", "not valid YAML"),
        ("a: &x [*x]\n", "f.yaml:1:4", "contains it"),
        ("? [1]\n: 2\n", "f.yaml:1:3", "expected a plain key"),
        ("a: !!python/object:os.system {}\n", "f.yaml:1:4", "expected a plain value"),
        ("a: !!int x\n", "f.yaml:1:4", "expected a number"),
        ("a: 1\n---\nb: 1\n", "f.yaml:2:1", "another document"),
    ],
)
def test_mistakes_have_a_position(text: str, where: str, what: str) -> None:
    with pytest.raises(SuiteError) as caught:
        yaml12.parse(text, "f.yaml")
    assert caught.value.message.startswith(where)
    assert what in caught.value.message


def test_an_alias_bomb_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 8)]
    with pytest.raises(SuiteError, match="at most"):
        yaml12.parse("\n".join(lines))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    for name, what in (("latin.yaml", "UTF-8"), ("none.yaml", "cannot be read"), (".", "cannot be read")):
        with pytest.raises(SuiteError, match=what):
            yaml12.load(tmp_path / name)


def test_brackets_that_nobody_closes_take_no_time() -> None:
    with pytest.raises(SuiteError, match=r"not valid YAML: exceeded maximum nesting depth|recursion"):
        yaml12.parse("[" * 20_000)
