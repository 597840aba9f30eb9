"""Where words go: results on stdout, everything else on stderr; with `--json` stdout is one document."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console, ConsoleOptions
from rich.progress import Progress, ProgressColumn
from rich.segment import Segment
from rich.table import Table

from detrbench import yaml12
from detrbench.errors import UsageError
from detrbench.results.records import to_json
from detrbench.words import json_text, printable

_FOLDED_ROWS = 1000  # of a table that is laid out for the width of a terminal

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, everything else on stderr.")]
Results = Annotated[Path, typer.Option("--results", metavar="DIR", help="The results folder.")]
Set = Annotated[
    list[str] | None,
    typer.Option("-s", "--set", metavar="KEY=VALUE", help="Change a setting. The value is YAML: 0.3, true, [1, 2]."),
]


def console(to_stderr: bool = False) -> Console:
    """A console for people; plain and unwrapped text where it is not a terminal."""
    made = Console(stderr=to_stderr, highlight=False, soft_wrap=False)
    if not made.is_terminal and "COLUMNS" not in made._environ:
        made.width = 160
    return made


def examples(*lines: str) -> str:
    """The epilog of a command's help: lines of `command   # what it does`."""
    return "[bold]Examples[/bold]\n\n" + "\n\n".join(line.replace("[", r"\[") for line in lines)


def print_json(document: Any) -> None:
    """The one document of `--json`; numbers that are not finite, which JSON does not know, are null."""
    sys.stdout.write(json_text(to_json(document), indent=2, default=str) + "\n")


def say(*lines: str, to_stderr: bool = False) -> None:
    """Lines of the result, on stdout; whatever others wrote in them steers no terminal."""
    for line in lines or ("",):
        print(printable(line), file=sys.stderr if to_stderr else sys.stdout, flush=to_stderr)


def print_yaml(document: Any) -> None:
    """A document for people."""
    print(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110), end="")


def note(text: str) -> None:
    """A line beside the result, on stderr."""
    say(text, to_stderr=True)


def table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Table | _LongTable:
    """A plain table; columns whose name starts with `>` are right-aligned. Cells are text, not markup."""
    columns, rows = list(columns), list(rows)
    if len(rows) > _FOLDED_ROWS:
        return _LongTable(columns, [["" if v is None else printable(str(v)) for v in row] for row in rows])
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    for row in rows:
        made.add_row(*(_cell(value) for value in row))
    return made


def facts(values: Mapping[str, Any]) -> Table:
    """Names with their values, as two columns without headings; what says nothing is left out."""
    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in values.items():
        if value not in (None, ""):
            made.add_row(name, _cell(value))
    return made


@dataclass(frozen=True)
class _LongTable:
    """Lines that are aligned and never folded: rich takes two milliseconds to lay out a row."""

    columns: list[str]
    rows: list[list[str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        lines = [[name.lstrip(">") for name in self.columns], *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines)]
        for line in lines:
            padded = (
                text.rjust(width) if name.startswith(">") else text.ljust(width)
                for name, text, width in zip(self.columns, line, widths)
            )
            yield Segment(" ".join(padded).rstrip() + "\n")


def _cell(value: Any) -> Any:
    from rich.text import Text

    return value if isinstance(value, Text) else Text("" if value is None else printable(str(value)))


def settings(pairs: Iterable[str] | None) -> dict[str, Any]:
    """`--set` as a mapping; raises UsageError for one without `=` or given twice."""
    found: dict[str, Any] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {pair!r}: expected KEY=VALUE", hint="example: --set keep_ratio=0.3")
        if key.strip() in found:
            raise UsageError(f"--set {key.strip()}: given twice")
        found[key.strip()] = yaml12.parse_value(value)
    return found


@contextlib.contextmanager
def bar(*columns: ProgressColumn) -> Iterator[Progress]:
    """A progress bar on stderr that goes when it is done; nothing is written where nobody watches."""
    to = console(to_stderr=True)
    made = Progress(*(columns or Progress.get_default_columns()), console=to, transient=True)
    with made if to.is_terminal else contextlib.nullcontext():  # one that is only disabled ends with an empty line
        yield made


def size(text: str) -> tuple[int, int]:
    """`--size` as (height, width); raises UsageError."""
    match = re.fullmatch(r"([1-9]\d{0,4})[xX×]([1-9]\d{0,4})", text)
    if not match:
        raise UsageError(f"--size {text!r}: expected HxW in pixels", hint="example: --size 800x1216")
    return int(match[1]), int(match[2])


def duration(seconds: float | None) -> str:
    """`4 s`, `3 min 20 s`, `2 h 05 min`, or `?`."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 100 else f"{hours // 24} days"
