"""`detrbench show`: one suite, model or result in full."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from detrbench.cli import output, weights
from detrbench.cli.output import Json
from detrbench.errors import UsageError, nearest
from detrbench.measures import MEASURES
from detrbench.results.store import CellResult, ResultsStore
from detrbench.suite import loading as suites
from detrbench.weights import catalogue
from detrbench.weights.catalogue import Entry

EXAMPLES = output.examples(
    "detrbench show table6_keep_ratio",
    "detrbench show sparse_detr_r50",
    "detrbench show quickstart/smoke/sparse-0.3",
)


def command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A suite, a model, or a result (suite/scale/cell).")],
    scale: Annotated[str | None, typer.Option(metavar="NAME", help="The scale of a suite.")] = None,
    results_folder: Annotated[Path, typer.Option("--results", metavar="DIR", help="Where results are kept.")] = Path(
        "results"
    ),
    weights_folder: weights.Folder = None,
    as_json: Json = False,
) -> None:
    """Show one suite with its cells resolved, one model with its released weights, or one result."""
    from detrbench import models

    if name in models.names():
        document = _model(name)
    elif name in suites.names() or name.endswith((".yaml", ".yml")):
        document = _suite(name, scale)
    else:
        document = _result(name, ResultsStore(results_folder, output.note))
    if as_json:
        output.print_json(document)
    else:
        output.print_yaml(document)


def _model(name: str) -> dict[str, Any]:
    from detrbench import models

    variant, spec = models.describe(name), models.resolve(name, {})
    return {
        "name": name,
        "summary": variant.summary,
        "about": variant.doc.strip(),
        "parts": dict(spec.parts),
        "options": _plain(spec.options),
        "sources": _plain(variant.sources),
        "weights": [_weights(entry) for entry in catalogue.of_model(name)],
    }


def _weights(entry: Entry) -> dict[str, Any]:
    """What is published of a detector's weights, and whether they are here."""
    return {
        "name": entry.name,
        "options": _plain(entry.options),
        "published_AP": dict(entry.ap),
        "paper": entry.paper,
        "repository": entry.code,
        "state": weights.state(entry),
    }


def _suite(name: str, scale: str | None) -> dict[str, Any]:
    loaded = suites.load(name)
    chosen = loaded.suite.pick_scale(scale, has_data=False)
    top = loaded.suite.model_dump(mode="json", exclude={"variants", "scales", "defaults"}, exclude_none=True)
    return {**top, "scale": chosen, "cells": [cell.describe() for cell in loaded.cells(chosen)]}


def _result(name: str, store: ResultsStore) -> dict[str, Any]:
    found = _matching(name.rstrip("/"), store)
    if not found:
        from detrbench import models

        known = [*suites.names(), *models.names(), *(f"{s}/{c}" for s, c in store.suites())]
        match = nearest(name, known)
        hint = f"did you mean {match!r}? " if match else ""
        raise UsageError(f"no suite, model or result is called {name!r}", hint=f"{hint}see detrbench list --help")
    if len(found) > 1:
        ids = ", ".join(f"{r.suite}/{r.scale}/{r.id}" for r in found[:8])
        raise UsageError(f"{name!r} fits {len(found)} results", hint=f"name one: {ids}")
    return _describe(found[0])


def _matching(name: str, store: ResultsStore) -> list[CellResult]:
    """By folder, by `suite/scale/cell`, or by any end of that."""
    path = Path(name)
    if (path / "cell.yaml").is_file():
        result = store.read_cell(path)
        return [result] if result else []
    results = [result for pair in store.suites() for result in store.cells(*pair)]
    return [r for r in results if f"/{r.suite}/{r.scale}/{r.id}".endswith(f"/{name}") or r.folder.name == name]


def _describe(result: CellResult) -> dict[str, Any]:
    measures = {}
    for measure in MEASURES:
        if measure in result.records or measure in result.status.get("measures", {}):
            state, why = result.state(measure)
            measures[measure] = {"state": state, "why": why, "records": result.records.get(measure, {})}
    return {**result.cell, "folder": str(result.folder), "measures": measures}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
