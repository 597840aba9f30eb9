"""`detrbench profile`: parameters and GFLOPs of one detector by part, or of every published row that is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from detrbench.cli import output
from detrbench.cli.output import Json, Set
from detrbench.errors import UsageError
from detrbench.measure import counting, protocols
from detrbench.measures import COMMON
from detrbench.results import records
from detrbench.suite.cells import Cell

if TYPE_CHECKING:
    from detrbench.published_counts import PublishedCount

EXAMPLES = output.examples(
    "detrbench profile sparse_detr_r50 --set keep_ratio=0.1",
    "detrbench profile deformable_detr_r50 --size 800x1216",
    "detrbench profile efficient_detr_r50 --protocol deformable_table",
    "detrbench profile --published",
    "detrbench profile --published sparse_table1",
    "detrbench profile --published sparse_detr/readme_main",
)


def command(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="With --published: a suite, or paper/table.")
    ] = None,
    set_: Set = None,
    size: Annotated[str | None, typer.Option(metavar="HxW", help="Count one image of this size.")] = None,
    protocol: Annotated[str, typer.Option(metavar="P", help="The counting protocol.")] = COMMON,
    published: Annotated[
        bool, typer.Option("--published", help="Show every published GFLOPs figure beside ours.")
    ] = False,
    results_folder: Annotated[
        Path, typer.Option("--results", metavar="DIR", help="With --published: results whose counts are reused.")
    ] = Path("results"),
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also print the counting rule, and what it and fvcore leave out.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Count parameters and GFLOPs (1 multiply-add = 1). Needs neither data nor weights."""
    if published:
        _published(model, results_folder, as_json)
    elif model is None:
        raise UsageError("expected a model, got none", hint="detrbench list models")
    else:
        _one(model, output.settings(set_), size, protocol, as_json, verbose)


def _one(model: str, options: dict[str, Any], size: str | None, protocol: str, as_json: bool, verbose: bool) -> None:
    rule = protocols.get("complexity", protocol)
    if size is not None:
        rule = rule.at(*output.size(size))
    record = counting.count(model, options, rule, cross_check=verbose or as_json)
    if as_json:
        output.print_json({"model": model, "options": options, **records.to_json(record)})
        return
    rows = [
        (part, f"{record.params_millions_by_part.get(part, 0):.2f}", f"{record.gflops_by_part.get(part, 0):.2f}")
        for part in dict.fromkeys([*record.gflops_by_part, *record.params_millions_by_part])
    ]
    rows.append(("total", f"{record.params_millions:.2f}", f"{record.gflops:.2f}"))
    chosen = "".join(f" {key}={value}" for key, value in options.items())
    output.say(f"{model}{chosen} under protocol {rule.name}", "")
    output.console().print(output.table(["part", ">params, M", ">GFLOPs"], rows))
    if not verbose:
        return
    print(f"\n{record.convention}")
    for name, check in record.cross_check.items():
        missed = ", ".join(f"{op} x{calls}" for op, calls in check.missed.items()) or "nothing"
        print(f"{name}: {check.gflops:.2f} GFLOPs; passes over {missed}")
    if record.uncounted:
        print(f"counted as zero: {', '.join(f'{op} x{calls}' for op, calls in record.uncounted.items())}")


def _published(what: str | None, results_folder: Path, as_json: bool) -> None:
    from detrbench import published_counts
    from detrbench.run.reuse import KnownRecords

    known = KnownRecords(results_folder)

    def count(cell: Cell, protocol: str) -> Mapping[str, Any]:
        found = known.counts(cell)
        if protocol in found:
            return found[protocol].envelope["records"][protocol]
        output.note(f"counting {cell.suite}:{cell.id} under {protocol}")
        if cell.external is None:
            rule = protocols.get("complexity", protocol)
            return records.to_json(counting.count(str(cell.model), cell.complexity_options, rule))
        from detrbench.run import steps

        return records.to_json(steps.count(cell, protocol))

    rows = published_counts.compare(what, count)
    if not rows:
        raise UsageError("no published GFLOPs of a detector that is built", hint="detrbench list suites")
    if as_json:
        shown = [{**dataclasses.asdict(row), "difference_percent": row.difference_percent} for row in rows]
        output.print_json({"rows": shown})
        return
    columns = ["suite", "cell", "figure", ">published", "its protocol", ">ours", ">difference", ">ours, common", "why"]
    print("GFLOPs of one forward, 1 multiply-add = 1 (2 in rt_detr_table and twice_640)\n")
    output.console().print(output.table(columns, map(_published_row, rows)))


def _published_row(row: PublishedCount) -> tuple[str, ...]:
    difference = row.difference_percent
    return (
        row.suite,
        row.cell,
        row.figure.removesuffix("_gflops").replace("gflops", "all"),
        f"{row.published:g}",
        row.protocol or "unknown",
        "" if row.ours is None else f"{row.ours:.2f}",
        "" if difference is None else f"{difference:+.2f} %",
        f"{row.common:.2f}",
        "; ".join(filter(None, [row.unexplained, row.reason])),
    )
