"""Every command in the documentation is one that the command line takes, of suites, detectors and weights that are."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from detrbench import models
from detrbench.cli.app import app
from detrbench.suite import loading as suites
from detrbench.weights import catalogue

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
WORKFLOW = ROOT / "docs" / "budgets-workflow.yml"
LINE = re.compile(r"^(?:\s*(?:\$ )?|.*- run: )(detrbench .*)$", re.MULTILINE)
INLINE = re.compile(r"`(detrbench [^\s`]+ [^`]+)`")  # `detrbench run` alone is the name of a command
ENDS = {"|", "||", "&&", ">", "then"}


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of each command in a page."""
    code = "\n".join(re.findall(r"^```.*?^```|^ {4}.*$", text, re.MULTILINE | re.DOTALL))
    for command in [*LINE.findall(code), *INLINE.findall(text)]:
        words = shlex.split(command, comments=True)[1:]
        end = next((i for i, word in enumerate(words) if word in ENDS), len(words))
        if end:
            yield words[:end]


@pytest.fixture(scope="module")
def refused() -> Callable[[list[str]], str | None]:
    """Why the command line would not take such arguments; None where it would. Nothing is run."""
    group = typer.main.get_command(app)
    seen: dict[str, Any] = {}
    for command in commands_of(group):
        command.callback = lambda **values: seen.update(values)
    group.callback = None

    def refusal(arguments: list[str]) -> str | None:
        seen.clear()
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            try:
                group(arguments, prog_name="detrbench")
            except SystemExit as done:
                if done.code:
                    return said.getvalue()
        return next((f"unknown: {name}" for name in named(seen) if not is_known(name)), None)

    return refusal


def commands_of(group: Any) -> Iterator[Any]:
    """The commands below a group, those of its groups too."""
    for command in group.commands.values():
        yield from commands_of(command) if hasattr(command, "commands") else [command]


def named(values: dict[str, Any]) -> Iterator[str]:
    """The suites, detectors and weights among the values of a command."""
    for key in ("suites", "name", "names", "model", "a", "b"):
        value = values.get(key)
        yield from [value] if isinstance(value, str) else value or []


@functools.cache
def ours() -> frozenset[str]:
    kinds = ("suites", "models", "parts", "results")
    written = (path.stem for path in (ROOT / "docs").glob("*.yaml"))
    return frozenset([*suites.names(), *written, *models.names(), *catalogue.entries(), *kinds, "norm_score", "coarse"])


def is_known(name: str) -> bool:
    """Whether that is a name of ours, a file, a figure, or a word that stands for one."""
    return name.partition(":")[0] in ours() or name.isupper() or "." in name or "/" in name or name.startswith("ap_")


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_command_is_one_that_the_command_line_takes(
    page: Path, refused: Callable[[list[str]], str | None]
) -> None:
    problems = {" ".join(words): refused(words) for words in commands(page.read_text(encoding="utf-8"))}
    assert {command: problem for command, problem in problems.items() if problem} == {}


def test_a_command_that_is_none_would_be_seen(refused: Callable[[list[str]], str | None]) -> None:
    page = "    detrbench run quickstart --no-such\n\n`detrbench show quikstart` and `detrbench run`\n"
    found = [refused(words) for words in commands(page)]
    assert len(found) == 2
    assert "--no-such" in str(found[0])
    assert found[1] == "unknown: quikstart"


def test_the_pages_have_commands() -> None:
    assert sum(len(list(commands(page.read_text(encoding="utf-8")))) for page in PAGES) > 60


def test_the_workflow_runs_commands_that_there_are(refused: Callable[[list[str]], str | None]) -> None:
    steps = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["check"]["steps"]
    lines = [line.strip() for step in steps for line in step.get("run", "").splitlines()]
    found = [words for line in lines for words in commands(f"    {line}")]
    assert {words[0] for words in found} == {"validate", "run", "check", "report"}
    assert [refused(words) for words in found] == [None] * len(found)
