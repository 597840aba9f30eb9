"""`detrbench status`: what runs where."""

from __future__ import annotations

import itertools
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from detrbench.cli import output
from detrbench.cli.output import Json
from detrbench.errors import UsageError
from detrbench.results.folder import SCHEMA
from detrbench.results.store import ResultsStore
from detrbench.run import status
from detrbench.words import shown

EXAMPLES = output.examples("detrbench status", "detrbench status /shared/results --json")


def command(
    results: Annotated[Path, typer.Argument(metavar="[RESULTS]", help="The results folder.")] = Path("results"),
    as_json: Json = False,
) -> None:
    """Show what runs where: on this machine, on others that share the results folder, and in Slurm's queue."""
    if not results.is_dir():
        raise UsageError(f"{shown(str(results))}: no such folder", hint="detrbench status RESULTS")
    store = ResultsStore(results, output.note)
    trainings = {pair: store.trainings(*pair) for pair in store.suites()}
    counts = [(*pair, status.counts(its)) for pair, its in trainings.items()]
    found = status.activities(itertools.chain(*trainings.values()), results, output.note)
    if as_json:
        suites = [{"suite": suite, "scale": scale, "measures": dict(states)} for suite, scale, states in counts]
        output.print_json({"schema": SCHEMA, "suites": suites, "activities": [asdict(each) for each in found]})
        return
    if not counts:
        output.note(f"no results in {results}")
    for suite, scale, states in counts:
        told = ", ".join(f"{number} {state.replace('_', ' ')}" for state, number in sorted(states.items()))
        output.say(f"{suite} at scale {scale}: {told or 'nothing yet'}")
    if found:
        rows = [tuple(asdict(each).values()) for each in found]
        output.console().print(output.table(["suite", "scale", "cell", "measure", "state", "where", "about"], rows))
