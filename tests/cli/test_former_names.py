"""A suite by the name that users were told first, from the command to the figures that they kept under it."""

from __future__ import annotations

import json

import pytest
from terminal import Terminal

FORMER, CURRENT = "table6_keep_ratio", "focus_table6_keep_ratio"
COUNT = ("run", f"suites/{FORMER}.yaml", "--measure", "complexity", "-k", "focus-0.1")


def test_what_was_kept_under_the_former_name_is_done_and_shown(terminal: Terminal) -> None:
    code, _, err = terminal.type(*COUNT)
    assert (code, terminal.calls) == (0, [("focus-0.1", "complexity")]), err
    (terminal.results / CURRENT).rename(terminal.results / FORMER)
    for name in (FORMER, CURRENT):
        assert terminal.type("run", name, *COUNT[2:])[0] == 0
        assert terminal.calls == []
        code, out, _ = terminal.type("show", f"{name}:focus-0.1", "--json")
        assert json.loads(out)["measures"]["complexity"]["state"] == "done"
        assert terminal.type("report", name, "-o", f"{name}.html")[0] == 0
        assert "1 of 15 rows measured" in (terminal.folder / f"{name}.html").read_text()
    assert [path.name for path in terminal.results.iterdir()] == [FORMER]
    listed = json.loads(terminal.type("list", "results", "--json")[1])["results"]
    assert {row["suite"] for row in listed} == {CURRENT}


@pytest.mark.parametrize("command", ["show", "validate", "check"])
def test_commands_take_the_former_name(terminal: Terminal, command: str) -> None:
    assert terminal.type(command, FORMER) == terminal.type(command, CURRENT)


def test_budgets_that_were_written_for_the_former_name_hold(terminal: Terminal) -> None:
    assert f"{CURRENT}: no budgets" in terminal.type("check", CURRENT)[2]
    (terminal.folder / "budgets").mkdir()
    (terminal.folder / "budgets" / f"{FORMER}.yaml").write_text(f"suite: {FORMER}\nbudgets: {{few: gflops <= 1}}\n")
    assert f"no results of {CURRENT}" in terminal.type("check", CURRENT)[2]
