"""From a results folder to what a reader opens: one HTML file, or the tables as Markdown, CSV, LaTeX or JSON.

    render(Path("results"))                         the page
    render(Path("results"), ["quickstart"], "md")   one suite's tables as text

Imports no torch. Equal results give equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from detrbench.errors import unknown_name

FORMATS = ("html", "md", "csv", "latex", "json")


def render(
    results_root: Path,
    suites: list[str] | None = None,
    format: str = "html",
    warn: Callable[[str], None] | None = None,
) -> str:
    """The report of a results folder as text.

    Args:
        results_root: the folder that `detrbench run` fills.
        suites: names of suites to show; None for all.
        format: one of FORMATS.
        warn: receives one line for each file that could not be read and was left out.

    Raises:
        UsageError: an unknown format, or a suite that has no results.
    """
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    from detrbench.report import formats, page, sections
    from detrbench.results.store import ResultsStore

    found = sections.read(ResultsStore(results_root, warn), suites)
    return page.render(found) if format == "html" else formats.WRITERS[format](found)


def write(
    results_root: Path,
    output: Path,
    suites: list[str] | None = None,
    format: str = "html",
    warn: Callable[[str], None] | None = None,
) -> Path:
    """Renders into a file, whole or not at all, and returns its path."""
    from detrbench.files import write_atomic

    write_atomic(output, render(results_root, suites, format, warn))
    return output
