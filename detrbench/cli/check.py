"""`detrbench check`: whether budgets hold; fails when something got worse, says so when nobody can know."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detrbench.cli import output
from detrbench.cli.output import Json, Results, Set
from detrbench.errors import DetrbenchError, EnvironmentLacking, Findings, Inconclusive, NothingSelected, UsageError

if TYPE_CHECKING:
    from detrbench.check.budgets import SuiteBudgets
    from detrbench.check.checking import Checked, CheckOptions

EXAMPLES = output.examples(
    "detrbench check quickstart",
    "detrbench check quickstart:sparse-0.3",
    "detrbench check budgets/quickstart.yaml --junit check.xml",
    "detrbench check quickstart --retries 0 --json",
    'detrbench check quickstart --update-baseline "new learning rate: AP up, same speed"',
)


def command(
    suite: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SUITE]...", help="Suites, single cells (SUITE:ID), or files of budgets. Default: all in budgets/."
        ),
    ] = None,
    results_folder: Results = Path("results"),
    baselines_folder: Annotated[
        Path, typer.Option("--baselines", metavar="DIR", help="The folder of baselines.")
    ] = Path("baselines"),
    scale: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Scale of the results. Default: as the budgets say, else as `run` chooses."),
    ] = None,
    retries: Annotated[
        int, typer.Option(min=0, metavar="N", help="How many times to repeat timings that are unclear.")
    ] = 2,
    device: Annotated[
        str | None, typer.Option(help="Device for repeated timings. Default: the one the results were measured on.")
    ] = None,
    set_: Set = None,
    data: Annotated[Path | None, typer.Option(metavar="PATH", help="As it was given to `detrbench run`.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="As it was given to `detrbench run`.")] = None,
    update_baseline: Annotated[
        str | None,
        typer.Option(
            metavar="REASON", help="Store these results as the baseline, with this reason, instead of checking."
        ),
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML.")] = None,
    on_github: Annotated[
        bool,
        typer.Option("--github", help="Write annotations and a step summary. On by default inside GitHub Actions."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check budgets against results: absolute, against a baseline, between variants of one run.

    Exit codes: 0 all hold; 1 broken, or something is missing; 2 budgets that cannot be read; 4 something could not be
    measured; 5 no budgets; 6 nothing is wrong, but something cannot be told.
    """
    from detrbench.check import budgets, checking

    targets = suite or sorted(str(path) for path in budgets.FOLDER.glob("*.yaml"))
    if not targets:
        raise NothingSelected(f"no budgets in {budgets.FOLDER}/", hint="name a suite, or see docs/ci.md")
    loaded = [budgets.load(target) for target in targets]
    if device is not None:
        from detrbench.environment import pick_device

        device = pick_device(device)
    options = checking.CheckOptions(
        results_folder, baselines_folder, scale, retries, device, output.settings(set_), data, limit
    )
    if update_baseline is not None:
        for one in loaded:
            _update(one, options, update_baseline)
        return
    checked = [checking.check(one, options, output.note) for one in loaded]
    _tell(checked, junit, on_github or os.environ.get("GITHUB_ACTIONS") == "true", as_json)
    _finish(checked)


def _update(one: SuiteBudgets, options: CheckOptions, reason: str) -> None:
    from detrbench.check import baselines, checking

    if one.cell is not None:
        raise UsageError("--update-baseline: a baseline is of a whole suite", hint="leave out :ID")
    scale = checking.scale_of(one, options)
    cells = checking.results_of(one, scale, options, output.note)
    path, changes = baselines.update(options.baselines, one.loaded.suite.name, scale, cells.values(), reason)
    output.say(f"{path}: written: {reason}")
    for change in changes:
        output.say(f"  {change}")


def _tell(checked: list[Checked], junit: Path | None, on_github: bool, as_json: bool) -> None:
    """Everything that is to be read is written before the command fails."""
    from detrbench.check import github, outputs
    from detrbench.files import write_atomic

    if junit is not None:
        write_atomic(junit, outputs.junit(checked))
    if as_json:
        output.print_json(outputs.as_json(checked))
    else:
        print("\n\n".join(outputs.text(one) for one in checked))
    if on_github:
        for line in github.tell(checked, os.environ):
            print(line, file=sys.stderr if as_json else sys.stdout)


def _finish(checked: list[Checked]) -> None:
    from detrbench.check import outputs

    code, texts = outputs.exit_code(checked), "; ".join(f"{one.suite}: {outputs.summary(one)}" for one in checked)
    errors: dict[int, type[DetrbenchError]] = {1: Findings, 4: EnvironmentLacking, 6: Inconclusive}
    hints = {
        1: "if the change is intended: detrbench check SUITE --update-baseline REASON, or change the budget",
        4: "detrbench run SUITE shows why a measure is missing",
        6: "measure on a quieter machine or longer, widen the margin, or use the baseline's hardware",
    }
    if code:
        raise errors[code](texts, hints[code])
