"""From a results folder to what a reader opens: one HTML file, or the tables as Markdown, CSV, LaTeX or JSON.

    render(Path("results"))                         the page
    render(Path("results"), ["quickstart"], "md")   one suite's tables as text

Imports no torch. Equal results give equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from detrbench.errors import unknown_name

if TYPE_CHECKING:
    from detrbench.report.album import Album

FORMATS = ("html", "md", "csv", "latex", "json")


def render(
    results_root: Path,
    suites: list[str] | None = None,
    format: str = "html",
    warn: Callable[[str], None] | None = None,
    album: Album | None = None,
) -> str:
    """The report of a results folder as text.

    Args:
        results_root: the folder that `detrbench run` fills.
        suites: names of suites to show; None for all.
        format: one of FORMATS.
        warn: receives one line for each file that could not be read and was left out.
        album: keeps a page's pictures; without one they stand in the page.

    Raises:
        UsageError: an unknown format, or a suite that has no results.
    """
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    from detrbench.report import formats, page, sections
    from detrbench.results.store import ResultsStore

    found = sections.read(ResultsStore(results_root, warn), suites)
    return page.render(found, album) if format == "html" else formats.WRITERS[format](found)


def write(
    results_root: Path,
    output: Path,
    suites: list[str] | None = None,
    format: str = "html",
    warn: Callable[[str], None] | None = None,
) -> list[Path]:
    """Renders into a file, whole or not at all; the pictures of a page go into `<name>_pictures/` beside it.

    Returns:
        The file, then the pictures.

    Raises:
        Unwritable: no space, no permission.
    """
    from detrbench.files import write_atomic
    from detrbench.report.album import Album

    album = Album(output)
    text = render(results_root, suites, format, warn, album)
    pictures = list(album.write())  # first, so that the page never shows what is not there
    write_atomic(output, text)
    return [output, *pictures]
