"""How much a page and a drawing hold: more is neither read nor opened in a second. What is left out is said."""

from __future__ import annotations

import dataclasses

from detrbench.report.sections import Section

ROWS_OF_A_PAGE = 1000
ROWS_OF_A_DRAWING = 60  # of what has a bar, a line or a column for each row


def fitted(found: list[Section]) -> list[Section]:
    """The sections of a page: of the longest ones the first rows, so that all of them together fit."""
    most = _most([len(section.entries) for section in found])
    return [section if len(section.entries) <= most else _cut(section, most) for section in found]


def left_out(section: Section) -> str:
    """What a section does not show, as it has too many rows for it; empty where it shows everything."""
    rows = len(section.entries)
    if rows <= ROWS_OF_A_DRAWING:
        return ""
    return (
        f"Left out are drawings with a bar or a line for each row and AP by category, which have room for "
        f"{ROWS_OF_A_DRAWING} of {rows} rows. All figures: detrbench report {section.suite} --format csv"
    )


def _most(lengths: list[int]) -> int:
    """So many rows of each section may be shown: the largest number with which all of them fit."""
    room, most = ROWS_OF_A_PAGE, 0
    for left, length in zip(range(len(lengths), 0, -1), sorted(lengths)):
        most = max(room // left, 1)
        if length > most:
            return most
        room -= length
    return max(lengths, default=0)


def _cut(section: Section, most: int) -> Section:
    said = (
        f"The first {most} of {len(section.entries)} rows, as a page holds {ROWS_OF_A_PAGE}; all of them: "
        f"detrbench report {section.suite} --format csv"
    )
    return dataclasses.replace(section, entries=section.entries[:most], problems=[*section.problems, said])
