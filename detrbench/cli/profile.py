"""`detrbench profile`: parameters and GFLOPs of one detector by part, or of every published row that is built."""

from __future__ import annotations

import functools
import re
from typing import Annotated, Any

import typer

from detrbench import records
from detrbench.cli import output
from detrbench.cli.output import Json, Set
from detrbench.errors import UsageError
from detrbench.suite import Cell

EXAMPLES = output.examples(
    "detrbench profile sparse_detr_r50 --set keep_ratio=0.1",
    "detrbench profile deformable_detr_r50 --size 800x1216",
    "detrbench profile efficient_detr_r50 --protocol deformable_table",
    "detrbench profile --published sparse_table1",
    "detrbench profile --published sparse_detr/readme_main",
)


def command(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="With --published: a suite, or paper/table.")
    ] = None,
    set_: Set = None,
    size: Annotated[str | None, typer.Option(metavar="HxW", help="One image of that size.")] = None,
    protocol: Annotated[str, typer.Option(metavar="P", help="What is counted, and how.")] = "common",
    published: Annotated[
        bool, typer.Option("--published", help="All published GFLOPs of detectors that are built, beside ours.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Count parameters and GFLOPs (1 multiply-add = 1). Needs neither data nor weights."""
    if published:
        _published(model, as_json)
    elif model is None:
        raise UsageError("expected a model, got none", hint="detrbench list models")
    else:
        _one(model, output.settings(set_), size, protocol, as_json)


def _one(model: str, options: dict[str, Any], size: str | None, protocol: str, as_json: bool) -> None:
    from detrbench import models
    from detrbench.measure import protocols

    rule = protocols.get("complexity", protocol)
    if size is not None:
        rule = rule.at(*_size(size))
    models.resolve(model, options)  # before torch is imported: a wrong name should not have to wait
    record = _count(model, options, rule)
    if as_json:
        output.print_json({"model": model, "options": options, **records.to_json(record)})
        return
    rows = [
        (part, f"{record.params_millions_by_part.get(part, 0):.2f}", f"{record.gflops_by_part.get(part, 0):.2f}")
        for part in dict.fromkeys([*record.gflops_by_part, *record.params_millions_by_part])
    ]
    rows.append(("total", f"{record.params_millions:.2f}", f"{record.gflops:.2f}"))
    chosen = "".join(f" {key}={value}" for key, value in options.items())
    print(f"{model}{chosen} under protocol {rule.name}\n")
    output.console().print(output.table(["part", ">params, M", ">GFLOPs"], rows))
    print(f"\n{record.convention}")
    for name, check in record.cross_check.items():
        missed = ", ".join(f"{op} x{calls}" for op, calls in check.missed.items()) or "nothing"
        print(f"{name}: {check.gflops:.2f} GFLOPs; passes over {missed}")
    if record.uncounted:
        print(f"counted as zero: {', '.join(f'{op} x{calls}' for op, calls in record.uncounted.items())}")


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)[xX×]([1-9]\d*)", text)
    if not match:
        raise UsageError(f"--size {text!r}: expected HxW in pixels", hint="example: --size 800x1216")
    return int(match[1]), int(match[2])


def _count(model: str, options: dict[str, Any], rule: Any, cross_check: bool = True) -> Any:
    from detrbench import models
    from detrbench.measure import complexity

    return complexity.measure(functools.partial(models.create, model, **options), rule, cross_check=cross_check)


def _published(suite: str | None, as_json: bool) -> None:
    rows = [_compare(*found) for found in _published_cells(suite)]
    if not rows:
        raise UsageError("no published GFLOPs of a detector that is built", hint="detrbench list suites")
    if as_json:
        output.print_json({"rows": rows})
        return
    shown = [
        (
            row["suite"],
            row["cell"],
            f"{row['published']:g}",
            row["protocol"] or "unknown",
            "" if row["ours"] is None else f"{row['ours']:.2f}",
            "" if row["difference_percent"] is None else f"{row['difference_percent']:+.2f} %",
            f"{row['common']:.2f}",
        )
        for row in rows
    ]
    columns = ["suite", "cell", ">published", "its protocol", ">ours", ">difference", ">ours, common"]
    print("GFLOPs of one forward, 1 multiply-add = 1\n")
    output.console().print(output.table(columns, shown))


def _published_cells(what: str | None) -> list[tuple[Cell, float]]:
    """The built cells at paper scale whose published row gives GFLOPs.

    `what` is a suite, or a table (`paper/table`) that takes the place of the one that suites of this paper name.
    """
    from detrbench import models
    from detrbench import suite as suites
    from detrbench.report import published as tables

    other = tables.load(what) if what and "/" in what and not what.endswith((".yaml", ".yml")) else None
    found = []
    for name in [what] if what and not other else suites.names():
        loaded = suites.load(name)
        if loaded.suite.published is None:
            continue
        table = tables.load(loaded.suite.published)
        if other:
            if other.reference.partition("/")[0] != table.reference.partition("/")[0]:
                continue
            table = other
        for cell in loaded.cells(loaded.suite.pick_scale(None, has_data=True)):
            if cell.model in models.names() and (gflops := _gflops(table, cell)) is not None:
                found.append((cell, gflops))
    return found


def _gflops(table: Any, cell: Cell) -> float | None:
    try:
        value = table.select(cell.row).values.get("gflops") if cell.row else None
    except UsageError:  # another table need not have this row
        return None
    return None if value is None else float(value)


def _compare(cell: Cell, published: float) -> dict[str, Any]:
    from detrbench.measure import protocols

    common, *own = cell.protocols_of("complexity")
    figures = {
        name: _count(str(cell.model), cell.complexity_options, protocols.get("complexity", name), False).gflops
        for name in [common, *own]
    }
    ours = figures[own[0]] if own else None
    return {
        "suite": cell.suite,
        "cell": cell.id,
        "published": published,
        "protocol": own[0] if own else None,
        "ours": ours,
        "difference_percent": None if ours is None else 100 * (ours / published - 1),
        "common": figures[common],
    }
