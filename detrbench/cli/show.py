"""`detrbench show`: one suite, model, or result: first what a reader looks for, everything with `--yaml`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from detrbench import published, renamed
from detrbench.cli import output, weights
from detrbench.cli.output import Json, Results
from detrbench.errors import UsageError, nearest
from detrbench.measures import MEASURES
from detrbench.results import address
from detrbench.results.store import CellResult, ResultsStore
from detrbench.suite import loading as suites
from detrbench.suite.cells import Cell, LoadedSuite
from detrbench.weights import catalogue
from detrbench.weights.catalogue import Entry

EXAMPLES = output.examples(
    "detrbench show focus_table6_keep_ratio",
    "detrbench show sparse_detr_r50",
    "detrbench show quickstart:sparse-0.3",
    "detrbench show focus_table6_keep_ratio:focus-0.3 --yaml",
    "detrbench show dac_detr_swin_l --recipe",
)


def command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A suite, a model, or a cell: SUITE:ID, SUITE:ID@SCALE.")],
    scale: Annotated[str | None, typer.Option(metavar="NAME", help="The scale of a suite.")] = None,
    results_folder: Results = Path("results"),
    weights_folder: weights.Folder = None,
    recipe: Annotated[
        bool, typer.Option("--recipe", help="How it is trained, and where each value comes from (a model or a cell).")
    ] = False,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Everything, as one YAML document.")] = False,
    as_json: Json = False,
) -> None:
    """Show one suite with its cells, one model with its released weights and published figures, or one result."""
    from detrbench import models

    name = renamed.current(name)
    if recipe:
        document, tell = _recipes(name, scale, results_folder), _tell_recipes
    elif name in models.names():
        document, tell = _model(name), _tell_model
    elif name in suites.names() or name.endswith((".yaml", ".yml")):
        document, tell = _suite(name, scale), _tell_suite
    elif address.is_one(name):
        document, tell = _cell(name, scale, results_folder), _tell_cell
    else:
        raise _unknown(name, results_folder)
    if as_json:
        output.print_json(document)
    elif as_yaml:
        output.print_yaml(document)
    else:
        tell(document)


def _unknown(name: str, results_folder: Path) -> UsageError:
    from detrbench import models

    store = ResultsStore(results_folder)
    cells = {address.of(cell): cell.id for pair in store.suites() for cell in store.cells(*pair)}
    match = nearest(name, [*suites.names(), *models.names(), *cells.values()])
    match = next((whole for whole, cell in cells.items() if cell == match), match)
    hint = f"did you mean {match!r}? " if match else ""
    return UsageError(
        f"no suite, model or result is called {name!r}", hint=f"{hint}detrbench list shows all; a cell is SUITE:ID"
    )


def _model(name: str) -> dict[str, Any]:
    from detrbench import models
    from detrbench.models.zoo import of_backbone

    variant, spec = models.describe(name), models.resolve(name, {})
    backbone = spec.parts["backbone"]
    return {
        "name": name,
        "summary": variant.summary,
        "about": variant.doc.strip(),
        "weights": [_weights(entry) for entry in catalogue.of_model(name)],
        "published": list(_published(name, variant.base)),
        "parts": dict(spec.parts),
        "options": _plain(spec.options),
        "sources": {source: _plain(of_backbone(options, backbone)) for source, options in variant.sources.items()},
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


def _published(model: str, base: str) -> Iterator[dict[str, Any]]:
    """The rows of the papers' tables that this model is, by the cell that stands for each."""
    for loaded, cell in _rows_of(model, base, None):
        row = _row_of(loaded, cell)
        if row is not None:
            yield {"cell": f"{cell.suite}:{cell.id}", "table": loaded.suite.published, **_figures(row)}


def _rows_of(model: str, base: str, scale: str | None) -> Iterator[tuple[LoadedSuite, Cell]]:
    """The rows of this model in the suites that come along; at the papers' scale where none is given."""
    for name in suites.names():
        if base not in suites.locate(name).read_text(encoding="utf-8"):
            continue  # reading all of them takes seconds
        loaded = suites.load(name)
        if scale is None or scale in loaded.suite.scales:
            rows = loaded.rows(loaded.suite.pick_scale(scale, has_data=True))
            yield from ((loaded, cell) for cell in rows if cell.model == model)


def _row_of(loaded: LoadedSuite, cell: Cell) -> published.PublishedRow | None:
    table = cell.published or loaded.suite.published
    return published.load(table).select(cell.row) if table is not None and cell.row else None


def _figures(row: published.PublishedRow | None) -> dict[str, Any]:
    values = row.values if row else {}
    return {name: values.get(name) for name in ("epochs", "AP", "gflops")}


def _suite(name: str, scale: str | None) -> dict[str, Any]:
    loaded = suites.load(name)
    chosen = loaded.suite.pick_scale(scale, has_data=False)
    top = loaded.suite.model_dump(mode="json", exclude={"variants", "scales", "defaults"}, exclude_none=True)
    found = loaded.cells(chosen)
    seeds = Counter(cell.first.id for cell in found if cell.first)
    cells = [
        {**cell.describe(), "seeds": 1 + seeds[cell.id], "published": _figures(_row_of(loaded, cell))}
        for cell in found
        if cell.first is None
    ]
    return {**top, "scale": chosen, "scales": list(loaded.suite.scales), "cells": cells}


def _cell(name: str, scale: str | None, results_folder: Path) -> dict[str, Any]:
    """A cell of the results; one that has none yet as its suite describes it."""
    try:
        found = address.several(name, results_folder, output.note)
    except UsageError:
        suite, cell, at = address.split(name)
        suite = renamed.current(suite)
        if suite not in suites.names():
            raise
        planned = {each["id"]: each for each in _suite(suite, at or scale)["cells"]}
        return planned[address.complete(f"cell of {suite}", cell, planned)]
    return _result(address.only(name, found))


def _result(result: CellResult) -> dict[str, Any]:
    measures = {}
    for measure in MEASURES:
        if measure in result.records or measure in result.status.get("measures", {}):
            state, why = result.state(measure)
            measures[measure] = {"state": state, "why": why, "records": result.records.get(measure, {})}
    seeds = {"further_seeds": [_result(each) for each in result.further]} if result.further else {}
    return {**result.cell, "folder": str(result.folder), "measures": measures, **seeds}


def _recipes(name: str, scale: str | None, results_folder: Path) -> dict[str, Any]:
    """The recipes of a model's rows, or that of one cell: equal ones once, with the cells that have them."""
    from detrbench import models

    if name in models.names():
        cells = [cell.describe() for _, cell in _rows_of(name, models.describe(name).base, scale)]
    elif address.is_one(name):
        cells = [_cell(name, scale, results_folder)]
    else:
        raise UsageError(f"--recipe: expected a model or a cell (SUITE:ID), got {name!r}", hint="see detrbench list")
    found: list[dict[str, Any]] = []
    for cell in cells:
        where, recipe = f"{cell['suite']}:{cell['id']}@{cell['scale']}", cell.get("recipe") or {}
        known = next((each for each in found if each["recipe"] == recipe), None)
        if known is None:
            found.append({"cells": [where], "recipe": recipe})
        else:
            known["cells"].append(where)
    if not found:
        raise UsageError(f"{name}: no suite has a row of it", hint=f"train it on your images: detrbench train {name}")
    return {"name": name, "recipes": found}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _tell_model(found: dict[str, Any]) -> None:
    from detrbench import models
    from detrbench.models.zoo import of_backbone

    own = models.describe(found["name"]).options
    output.say(f"{found['name']}: {found['summary']}", "", found["about"].replace("\n", " "), "")
    released = found["weights"]
    facts = {
        "paper": "; ".join(dict.fromkeys(each["paper"] for each in released if each["paper"])),
        "repository": "; ".join(dict.fromkeys(each["repository"] for each in released)),
        "parts": ", ".join(f"{kind} {part}" for kind, part in found["parts"].items() if part != "none"),
        "options": f"{_settings(of_backbone(own, found['parts']['backbone']))} (all: --yaml)",
    }
    output.console().print(output.facts(facts))
    if released:
        output.say("", "official weights")
        rows = [(w["name"], _settings(w["published_AP"]), _settings(w["options"]), w["state"]) for w in released]
        output.console().print(output.table(["name", "published AP", "trained with", "state"], rows))
    if found["published"]:
        output.say("", "published, by the cells that measure it")
        counts = [(r["cell"], r["table"], r["epochs"], r["AP"], r["gflops"]) for r in found["published"]]
        output.console().print(output.table(["cell", "table", ">epochs", ">AP", ">GFLOPs"], counts))
    output.say("", f"next: detrbench profile {found['name']}")


def _tell_suite(found: dict[str, Any]) -> None:
    output.say(f"{found['name']}: {found['title']}")
    if found.get("description"):
        output.say(found["description"])
    if found.get("published"):
        table = published.load(found["published"])
        output.say(f"published: {table.citation}: {table.source}")
    output.say(
        f"at scale {found['scale']} (scales: {', '.join(found['scales'])}), measures {', '.join(found['measure'])}", ""
    )
    rows = [
        (
            cell["id"],
            cell.get("source") or cell["model"] or "published only",
            _settings(cell["options"]),
            cell["official"],
            cell["seeds"],
            cell["published"]["AP"],
            cell["published"]["gflops"],
        )
        for cell in found["cells"]
    ]
    heads = ["cell", "model", "options", "official weights", ">seeds", ">published AP", ">published GFLOPs"]
    output.console().print(output.table(heads, rows))
    output.say("", f"next: detrbench run {found['name']} --dry-run; one cell: detrbench show {found['name']}:ID")


def _tell_cell(found: dict[str, Any]) -> None:
    what = found.get("source") or found["model"] or "an external detector"
    output.say(f"{found['suite']}:{found['id']}@{found['scale']}: {what}")
    facts: dict[str, Any] = {key: _settings(found[key]) for key in ("options", "resolved")}
    facts |= {key: found.get(key) for key in ("official", "checkpoint", "note", "folder")}
    output.console().print(output.facts(facts))
    if "measures" not in found:
        output.say("", f"no results yet: detrbench run {found['suite']} -k {found['id']} --scale {found['scale']}")
        return
    for training in (found, *found.get("further_seeds", [])):
        output.say(
            "", *([f"seed {training['resolved']['seed']}: {training['id']}"] if "further_seeds" in found else [])
        )
        output.console().print(output.table(["measure", "protocol", "state", "figures"], _measured_rows(training)))


def _measured_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (measure, protocol, each["state"].replace("_", " "), _headline(record) or each["why"] or "")
        for measure, each in found["measures"].items()
        for protocol, record in (each["records"] or {"": {}}).items()
    ]


def _tell_recipes(found: dict[str, Any]) -> None:
    for each in found["recipes"]:
        output.say(", ".join(each["cells"]))
        if not each["recipe"]:
            output.say("its recipe was not recorded: run it again", "")
            continue
        rows = [(name, json.dumps(value), source) for name, (value, source) in each["recipe"].items()]
        output.console().print(output.table(["setting", "value", "from"], rows))
        output.say()


def _headline(record: Mapping[str, Any]) -> str:
    """The plain figures of a record: numbers, and estimates with their value; not what stands deeper."""
    found = []
    for name, value in record.items():
        number = value.get("value") if isinstance(value, Mapping) else value
        if isinstance(number, int | float) and not isinstance(number, bool):
            found.append(f"{name} {number:.4g}")
    return ", ".join(found[:8])


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())
