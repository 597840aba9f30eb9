"""Whatever is typed gets an answer: never an internal error, never a traceback."""

from __future__ import annotations

import pytest
from terminal import Terminal

LONG, MANY = "x" * 5000, "9" * 400


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "demo.yaml", "-k", "not " * 3000 + "a"),
        ("run", "demo.yaml", "-k", "(" * 3000 + "a" + ")" * 3000),
        ("run", LONG),
        ("run", "a/" * 3000 + "x.yaml"),
        ("run", "\0.yaml"),
        ("run", "~nouser/x.yaml"),
        ("run", "demo.yaml", "--data", "~nouser"),
        ("run", "demo.yaml", "--data", LONG),
        ("run", "demo.yaml", "--results", LONG),
        ("run", "demo.yaml", "--set", f"epochs={MANY}"),
        ("run", "demo.yaml", "--set", f"lr={MANY}"),
        ("run", "demo.yaml", "--set", "keep_ratio=" + "9" * 5000),
        ("train", LONG, "--data", "."),
        ("train", "dino_tiny", "--data", LONG),
        ("train", "dino_tiny", "--data", "~nouser"),
        ("train", "dino_tiny", "--data", "."),
        ("report", LONG),
        ("check", LONG),
        ("compare", LONG, LONG),
        ("validate", LONG),
        ("validate", "~nouser"),
        ("validate", "/dev/zero"),
        ("evaluate", LONG, "--data", "."),
        ("evaluate", "x.json", "--data", LONG),
        ("show", LONG),
        ("status", LONG),
        ("status", "~nouser"),
        ("profile", "sparse_detr_tiny", "--set", f"num_queries={MANY}"),
        ("profile", LONG),
    ],
    ids=lambda arguments: " ".join(argument[:20] for argument in arguments),
)
def test_nonsense_is_the_users_mistake(terminal: Terminal, arguments: tuple[str, ...]) -> None:
    code, out, err = terminal.type(*arguments)
    assert code == 2, err[:300]
    assert out == ""
    assert err.startswith("error: ")
    assert len(err.splitlines()) <= 2
