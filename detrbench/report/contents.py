"""The order of a report: suites by the paper whose table they are, papers by year."""

from __future__ import annotations

import re
from dataclasses import dataclass

from detrbench.report.sections import Section

OWN, LAST = "Without published table", 9999


@dataclass(frozen=True)
class Group:
    """The suites of one paper, in the order of its tables."""

    title: str
    sections: tuple[Section, ...]


def groups(found: list[Section]) -> list[Group]:
    """All sections, each in one group; suites that answer to no paper come last."""
    groups: dict[tuple[int, str], list[Section]] = {}
    for section in found:
        paper = section.published
        key = (paper.year, f"{paper.paper}, {paper.venue} {paper.year}") if paper else (LAST, OWN)
        groups.setdefault(key, []).append(section)
    return [
        Group(title, tuple(sorted(groups[year, title], key=_natural)))
        for year, title in sorted(groups, key=lambda key: (key[0], key[1].lower()))
    ]


def _natural(section: Section) -> list[tuple[int, int, str]]:
    """Table 2 before Table 10; a suite's scales from the paper's own down."""
    reference = section.published.reference if section.published else ""
    scales = ("paper", "mini", "smoke")
    scale = scales.index(section.scale) if section.scale in scales else len(scales)
    pieces = re.findall(r"\d+|\D+", f"{reference} {section.suite}")
    return [*((int(p), 0, "") if p.isdigit() else (-1, 0, p) for p in pieces), (-2, scale, section.scale)]
