"""`detrbench list`: what there is."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from detrbench.cli import output
from detrbench.cli.output import Json, Results
from detrbench.errors import SuiteError
from detrbench.suite import loading as suites
from detrbench.words import printable

EXAMPLES = output.examples(
    "detrbench list suites",
    "detrbench list models --json",
    "detrbench list results --results results",
)


class What(str, Enum):
    """What can be listed."""

    suites = "suites"
    models = "models"
    parts = "parts"
    results = "results"


def command(
    what: Annotated[What | None, typer.Argument(help="What to list. Default: everything.", show_default=False)] = None,
    results_folder: Results = Path("results"),
    as_json: Json = False,
) -> None:
    """List suites, models, parts of models, or results."""
    kinds = [what] if what else list(What)
    found = {kind.value: _rows(kind, results_folder) for kind in kinds}
    if as_json:
        output.print_json(found)
        return
    for kind, rows in found.items():
        if len(kinds) > 1:
            output.say("", kind.upper(), "")
        _print(kind, rows, results_folder)


def _rows(kind: What, results_folder: Path) -> list[dict[str, Any]]:
    return {What.suites: _suites, What.models: _models, What.parts: _parts}.get(
        kind, lambda: _results(results_folder)
    )()


def _print(kind: str, rows: list[dict[str, Any]], results_folder: Path) -> None:
    if rows:
        shown = [{k: v for k, v in row.items() if k != "options" or "accepts" not in row} for row in rows]
        output.console().print(output.table(shown[0], ([_text(v) for v in row.values()] for row in shown)))
    else:
        output.note(f"no {kind}" + (f" in {results_folder}" if kind == What.results else ""))


def _text(value: Any) -> Any:
    if isinstance(value, dict):  # a line each; whatever stands in them breaks none
        return Text("\n".join(printable(f"{name}: {text}") for name, text in value.items()))
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def _suites() -> list[dict[str, Any]]:
    rows = []
    for name in suites.names():
        try:
            loaded = suites.load(name)
        except SuiteError as error:
            output.note(error.message)
            continue
        scales = list(loaded.suite.scales)
        rows.append(
            {
                "name": name,
                "title": loaded.suite.title,
                "published": loaded.suite.published,
                "cells": len(loaded.rows(scales[0])),
                "scales": scales,
            }
        )
    return rows


def _models() -> list[dict[str, Any]]:
    from detrbench import models

    return [{"name": name, "summary": models.describe(name).summary} for name in models.names()]


def _parts() -> list[dict[str, Any]]:
    from detrbench import models

    return [
        {
            "kind": part.kind,
            "name": part.name,
            "options": list(part.options),
            "accepts": {name: str(option.accepts) for name, option in part.options.items()},
            "summary": part.summary,
        }
        for part in models.all_parts()
    ]


def _results(folder: Path) -> list[dict[str, Any]]:
    from detrbench.measures import MEASURES
    from detrbench.results.store import ResultsStore

    store = ResultsStore(folder, output.note)
    return [
        {
            "suite": suite,
            "scale": scale,
            "cell": result.id,
            "done": [measure for measure in MEASURES if measure in result.records],
            "failed": [measure for measure in MEASURES if result.state(measure)[0] == "failed"],
            "folder": str(result.folder),
        }
        for suite, scale in store.suites()
        for result in store.trainings(suite, scale)
    ]
