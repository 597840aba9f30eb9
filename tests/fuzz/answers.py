"""A command beside files that somebody broke, typed in this process, and what detrbench promises to answer.

The promise: 0 with a result, or 1, 2, 4, 5, 6 with one clear line and at most one hint. Never an internal error, a
traceback, a command that hangs, a control character on the terminal, or a file outside the folder.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
import shlex
import shutil
import signal
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from detrbench import cli

PATIENCE = 120  # seconds that a command may take here: they all take less than one where nothing else is at work
DOCUMENTED = (0, 1, 2, 4, 5, 6)
_STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Case:
    """Files by their place in an empty folder, and the command that is typed there."""

    arguments: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)

    def __repr__(self) -> str:
        """The case as lines for a shell."""
        lines = ["cd $(mktemp -d)"]
        for name, content in self.files.items():
            coded = base64.b64encode(content).decode()
            folder = os.path.dirname(name)
            make = f"mkdir -p {shlex.quote(folder)}; " if folder else ""
            lines.append(f"{make}base64 -d <<< {coded or repr('')} > {shlex.quote(name)}")
        typed = " ".join(_quoted(argument) for argument in self.arguments)
        return "\n".join(["", *lines, f"detrbench {typed} --debug", ""])

    def as_yaml(self) -> dict[str, Any]:
        """The case as an entry of the corpus."""
        return {"arguments": list(self.arguments), "files": {name: _kept(c) for name, c in self.files.items()}}


@dataclass(frozen=True)
class Answer:
    """What came back; `folder` is where the command was typed and lies there until the next one."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def lines(self) -> list[str]:
        """What stands on stderr, without notes on what was left out on the way."""
        return self.err.splitlines()


class Hang(BaseException):
    """A command took longer than any may."""


@dataclass
class Tally:
    """How many cases were tried, and with which codes they ended."""

    codes: dict[int, int] = field(default_factory=dict)

    def add(self, code: int) -> None:
        self.codes[code] = self.codes.get(code, 0) + 1


TALLY = Tally()


class answer:  # noqa: N801  (read as a function; one that yields would leave tracebacks that pytest cannot show)
    """`with answer(case) as found`: types a case in a folder of its own, so deep that a way out of it is seen.

    Raises:
        AssertionError: the answer is none of those that are promised.
    """

    def __init__(self, case: Case) -> None:
        self.case, self.here = case, os.getcwd()

    def __enter__(self) -> Answer:
        self.root = Path(tempfile.mkdtemp(prefix="detrbench-fuzz-"))
        folder = self.root / "a" / "b" / "c" / "d" / "work"
        for name, content in self.case.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        try:
            return self._answered(folder)
        except BaseException:
            self.__exit__()
            raise

    def _answered(self, folder: Path) -> Answer:
        found = _typed(self.case)
        TALLY.add(found.code)
        held = problem(found)
        outside = [path for path in self.root.rglob("*") if path.is_file() and not path.is_relative_to(folder)]
        held = held or (f"files outside the folder: {outside}" if outside else None)
        assert held is None, f"{held}{self.case!r}"
        return found

    def __exit__(self, *exception: object) -> None:
        os.chdir(self.here)
        shutil.rmtree(self.root, ignore_errors=True)


def problem(found: Answer) -> str | None:
    """How an answer breaks the promise; None where it keeps it."""
    if found.code not in DOCUMENTED:
        return f"exit code {found.code}: {found.err[-300:]!r}"
    for name, text in (("stdout", found.out), ("stderr", found.err)):
        if "Traceback (most recent call last)" in text:
            return f"a traceback on {name}"
        if _STEERS.search(text):
            return f"control characters on {name}: {_STEERS.findall(text)[:5]}"
    said = found.err.strip()
    if found.code in (2, 4, 5, 6) and not said:
        return f"exit code {found.code} without a word"
    if found.code == 2 and "\nUsage" not in found.err and not found.err.startswith("Usage"):
        errors = [line for line in found.lines if line.startswith("error: ")]
        if len(errors) != 1:
            return f"expected one line that begins with 'error: ', got {said!r:.400}"
    return None


def _typed(case: Case) -> Answer:
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace"))

    def hang(number: int, frame: object) -> None:
        raise Hang(f"still at work after {PATIENCE} seconds")

    before = signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main(case.arguments)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    said = []
    for stream in (out, err):
        stream.flush()
        said.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
    return Answer(code, *said, Path.cwd())


def load(path: Path) -> list[tuple[str, Case, dict[str, Any]]]:
    """(name, case, entry) of every entry of a file of the corpus."""
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [
        (
            name,
            Case(tuple(entry["arguments"]), {n: _read(c) for n, c in entry.get("files", {}).items()}),
            entry,
        )
        for name, entry in entries.items()
    ]


def _kept(content: bytes) -> str | dict[str, str]:
    with contextlib.suppress(UnicodeDecodeError):
        text = content.decode()
        if text.isprintable() or "\n" in text:
            return text
    return {"base64": base64.b64encode(content).decode()}


def _read(content: str | dict[str, str]) -> bytes:
    return content.encode() if isinstance(content, str) else base64.b64decode(content["base64"])


def _quoted(argument: str) -> str:
    """An argument as bash reads it, whatever stands in it."""
    if argument.isprintable() and argument.isascii():
        return shlex.quote(argument)
    coded = "".join(f"\\x{byte:02x}" for byte in argument.encode("utf-8", "surrogatepass"))
    return f"$'{coded}'"
