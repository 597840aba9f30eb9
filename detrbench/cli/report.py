"""`detrbench report`: the results as a page or as tables."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from detrbench.cli import output
from detrbench.cli.output import Results
from detrbench.errors import NothingSelected, UsageError
from detrbench.results.store import ResultsStore

EXAMPLES = output.examples(
    "detrbench report",
    "detrbench report quickstart -o quick.html",
    "detrbench report --format md",
    "detrbench report old_results/ --format csv -o figures.csv",
)


class ReportFormat(str, Enum):
    """What a report can be."""

    html = "html"
    md = "md"
    csv = "csv"
    latex = "latex"
    json = "json"


def command(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RESULTS|SUITE]...", help="A results folder, or names of suites in it. Default: everything."
        ),
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Output file. Default: report.html for html, else stdout (-)."
        ),
    ] = None,
    form: Annotated[ReportFormat, typer.Option("--format", help="Output format.")] = ReportFormat.html,
    results_folder: Results = Path("results"),
) -> None:
    """Write the results as one page that needs no network, or as md, csv, latex or json."""
    from detrbench import report

    folders = [Path(name) for name in what or () if Path(name).is_dir()]
    names = [name for name in what or () if not Path(name).is_dir()]
    if len(folders) > 1:
        hint = "to merge results, copy them: cp -r one/* another/* merged/"
        raise UsageError(f"expected one folder of results, got {len(folders)}", hint=hint)
    folder = folders[0] if folders else results_folder
    _check(names, folder)
    if target is None and form is ReportFormat.html:
        target = Path("report.html")
    if target is None or str(target) == "-":
        sys.stdout.write(report.render(folder, names or None, form.value, output.note))
        return
    page, *pictures = report.write(folder, target, names or None, form.value, output.note)
    output.say(str(page.resolve()))
    if pictures:
        output.note(f"{len(pictures)} pictures beside it, in {pictures[0].parent.name}/")


def _check(names: list[str], folder: Path) -> None:
    store = ResultsStore(folder)
    known = {suite for suite, _ in store.suites()}
    if not known:
        raise NothingSelected(f"no results in {folder}", hint="detrbench run quickstart, or name another folder")
    for name in names:
        if store.called(name) not in known:
            raise UsageError(f"no results of {name!r} in {folder}", hint=f"there are: {', '.join(sorted(known))}")
