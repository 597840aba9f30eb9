"""`detrbench compare`: what two results differ by, with intervals and verdicts. It shows; it never gates."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detrbench.cli import output
from detrbench.cli.output import Results
from detrbench.words import printable

if TYPE_CHECKING:
    from detrbench.compare.cells import Comparison

EXAMPLES = output.examples(
    "detrbench compare old_results/ results/",
    "detrbench compare quickstart:deformable quickstart:sparse-0.3",
    "detrbench compare quickstart:deformable@smoke quickstart:deformable@mini",
    "detrbench compare results/quickstart/smoke other/quickstart/smoke --format md",
    "detrbench compare 'quickstart:deformable#0' 'quickstart:deformable#1'",
)


class ComparisonFormat(str, Enum):
    """How a comparison is written."""

    text = "text"
    json = "json"
    md = "md"
    csv = "csv"
    latex = "latex"


def command(
    a: Annotated[str, typer.Argument(metavar="A", help="The old side: SUITE:ID, a suite, or a results folder.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The new side, written the same way.")],
    form: Annotated[ComparisonFormat, typer.Option("--format", help="Output format.")] = ComparisonFormat.text,
    results_folder: Results = Path("results"),
) -> None:
    """Compare two results: AP, GFLOPs, latency, memory, Corr; what differs, how surely, and which way.

    AP is compared on the same images and latency in the same rounds wherever both sides have them. Of rows that were
    trained with several seeds, the methods are compared; of single trainings nothing is decided.
    """
    from detrbench.compare.cells import compare
    from detrbench.report import comparison

    found = compare(a, b, results_folder, output.note)
    if form is not ComparisonFormat.text:
        sys.stdout.write(comparison.WRITERS[form.value](found))
        return
    tell(found)


def tell(found: Comparison) -> None:
    """The comparison as text."""
    from detrbench.report import comparison

    console = output.console()
    heads = [f">{name}" if name in comparison.NUMBERS else name for name in comparison.COLUMNS]
    output.say(f"A: {found.a}", f"B: {found.b}", "")
    if found.rows:
        console.print(output.table(heads, [comparison.cells(row) for row in found.rows]))
        output.say()
    for line in comparison.remarks(found):
        console.print(printable(line), markup=False)
