"""`detrbench figure`: one chart as a file for a paper."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from detrbench.cli import output
from detrbench.cli.output import Results
from detrbench.errors import NothingSelected
from detrbench.results.store import ResultsStore

EXAMPLES = output.examples(
    "detrbench figure ap_gflops -o fig.pdf",
    "detrbench figure ap_latency focus_table6_keep_ratio -o fig.svg --width page",
    "detrbench figure corr_gflops focus_table3_correlation -o fig.pgf",
)


class Width(str, Enum):
    """How wide a figure stands in a paper."""

    column = "column"
    page = "page"


def command(
    name: Annotated[
        str, typer.Argument(metavar="FIGURE", help="Quantity and cost: ap_gflops, ap50_params, corr_latency, ...")
    ],
    suites: Annotated[
        list[str] | None, typer.Argument(metavar="[SUITE]...", help="Suites to show. Default: all.")
    ] = None,
    target: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="A file name ending in .pdf, .svg, .png or .pgf.")
    ] = Path("figure.pdf"),
    width: Annotated[
        Width, typer.Option(help="Width: one column of a two-column paper (3.35 in), or the page (6.9 in).")
    ] = Width.column,
    results: Results = Path("results"),
) -> None:
    """Draw AP against GFLOPs, or any other figure against any other cost, at the width of a paper's column."""
    from detrbench.report import charts, scatter, sections

    store = ResultsStore(results, output.note)
    if not store.suites():
        raise NothingSelected(f"no results in {results}", hint="detrbench run quickstart, or --results DIR")
    chart = charts.named(sections.read(store, suites), name)
    scatter.write(chart, target, width.value)
    output.say(str(target.resolve()))
    for line in filter(None, (chart.sentence, chart.caption)):
        output.note(line)
