"""The commands, in the order in which a newcomer meets them."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
import typer.core
import typer.main

import detrbench
from detrbench.cli import (
    INTERRUPTED,
    TERMINATED,
    Terminated,
    check,
    compare,
    convert,
    doctor,
    evaluate,
    export,
    figure,
    listing,
    predict,
    profile,
    report,
    run,
    show,
    status,
    train,
    validate,
    visualize,
    weights,
)


class _Commands(typer.core.TyperGroup):
    """Ctrl-C ends any command with 130 and SIGTERM with 143, in every version of typer."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stopped:
            word, code = ("terminated", TERMINATED) if isinstance(stopped, Terminated) else ("interrupted", INTERRUPTED)
            print(f"{word}; run the same command again to resume", file=sys.stderr)
            raise SystemExit(code) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with [bold]detrbench run quickstart[/bold], then [bold]detrbench report[/bold]. "
    "[bold]detrbench COMMAND --help[/bold] shows examples.\n\n"
    "Exit codes: 0 ok; 1 findings (a cell failed, data with mistakes); 2 usage or configuration; 3 internal error; "
    "4 this machine cannot do it; 5 nothing selected; 6 inconclusive; 130 interrupted; 143 terminated.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"detrbench {detrbench.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks. Accepted anywhere on the line.")] = False,
) -> None:
    """One benchmark and ablation suite for efficient DETR detectors."""


for _module, _name in (
    (run, "run"),
    (train, "train"),
    (status, "status"),
    (report, "report"),
    (figure, "figure"),
    (compare, "compare"),
    (check, "check"),
    (listing, "list"),
    (show, "show"),
    (validate, "validate"),
    (doctor, "doctor"),
    (profile, "profile"),
    (evaluate, "evaluate"),
    (predict, "predict"),
    (visualize, "visualize"),
    (convert, "convert"),
    (export, "export"),
):
    app.command(_name, epilog=_module.EXAMPLES)(_module.command)
app.add_typer(weights.app, name="weights", help="The released weights of the detectors: list, fetch, import, verify.")

# Built once: a process that types several commands, as tests do, would build it for each.
commands = typer.main.get_command(app)
