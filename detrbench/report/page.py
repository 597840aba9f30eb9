"""The HTML page: one file, no network, readable without JavaScript; all text escaped by jinja2."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from detrbench import measures
from detrbench.measures import CHOSEN
from detrbench.pictures.gallery import Exhibit
from detrbench.report import (
    contents,
    counts,
    figures,
    findings,
    frontier,
    labels,
    overview,
    pictures,
    provenance,
    sections,
    tables,
)
from detrbench.report.figures import Figure
from detrbench.report.findings import Finding, SuiteFindings
from detrbench.report.provenance import Rule
from detrbench.report.sections import Section
from detrbench.report.tables import Table

MOST_CONDITIONS = 5  # drawings of AP against GFLOPs in the overview; the others are in their suites' sections
FOLDER = Path(__file__).resolve().parent.parent / "reports"


@dataclass(frozen=True)
class SectionView:
    """A section with everything the template shows.

    A `compact` one has nothing but counts that its table already holds: its drawings are folded away unless its suite
    asks for them. `pictures` are drawings of images, between the figures and the folded tables: each with a `title`,
    a `caption`, the text `alt` for those who do not see it, and `source`, a data: URI.
    """

    section: Section
    table: Table
    details: list[Table]
    figures: list[Figure]
    compact: bool
    findings: SuiteFindings
    pictures: list[Exhibit]
    rules: list[Rule]
    settings: list[tuple[str, str]]
    measured_rows: int


def render(found: list[Section]) -> str:
    """The page for these sections; equal sections give equal bytes."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sortable"] = _sortable
    environment.filters["prose"] = _prose
    groups = contents.groups(found)
    ordered = [section for group in groups for section in group.sections]
    detectors = overview.detectors(ordered)
    colours = sections.families([*ordered, detectors.section])
    machines = list(provenance.machines(ordered))
    page: str = environment.get_template("page.html.j2").render(
        groups=[(group.title, [_view(section, colours) for section in group.sections]) for group in groups],
        machines=machines,
        all=_overview(ordered, detectors, colours),
        suites=[provenance.line(section) for section in ordered],
        measure_label=measures.label,
        colours=colours,
        style=(FOLDER / "style.css").read_text(encoding="utf-8"),
        script=(FOLDER / "script.js").read_text(encoding="utf-8"),
        label=labels.label,
    )
    return page.strip() + "\n"


def _sortable(value: float | str) -> str:
    """What the script sorts a cell by: six digits are enough to tell any two figures apart that differ."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _prose(text: object) -> str:
    """A suite's own words as HTML: escaped, with what stands between backquotes as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`\n]+)`", r"<code>\1</code>", str(escape(text))))


def _view(section: Section, colours: Mapping[str, int]) -> SectionView:
    return SectionView(
        section=section,
        table=tables.main_table(section),
        details=tables.detail_tables(section),
        figures=figures.drawings(section, colours),
        compact=not any(section.is_measured(measure) for measure in CHOSEN if measure != "complexity")
        and not section.asks("plots"),
        findings=findings.about(section),
        pictures=pictures.gallery_of(section),
        rules=list(provenance.rules(section)),
        settings=[(key, labels.shown(key, value)) for key, value in section.settings.items() if value is not None],
        measured_rows=sum(bool(cell.records) for cell in section.cells),
    )


@dataclass(frozen=True)
class Overview:
    """What stands before the suites.

    `detectors` holds every method under one protocol, `conditions` AP by what it was measured on, `counts` how
    published figures were counted, `rules` the counting rules in words; each table is None where it would be empty.
    """

    detectors: Table | None
    common: str
    figures: list[Figure]
    conditions: list[Table]
    counts: Table | None
    facts: list[Finding]
    rules: list[Rule]
    dates: str


def _overview(found: list[Section], detectors: overview.Detectors, colours: Mapping[str, int]) -> Overview:
    if len(found) < 2:  # all of one suite is that suite
        return Overview(None, "", [], [], None, [], [], provenance.dates(found))
    conditions, counted = overview.conditions(found), counts.counted_rows(found)
    drawn = [frontier.measured(section, colours) for section in conditions]
    drawn = [frontier.published(found, detectors, colours), *drawn[:MOST_CONDITIONS]]
    several = [section for section in conditions if len(section.spec["suites"]) > 1]
    rules = list(dict.fromkeys(rule for section in found for rule in provenance.rules(section, ("complexity",))))
    return Overview(
        detectors=overview.detector_table(detectors) if detectors.section.entries else None,
        common=next((rule.convention for rule in rules if rule.protocol == measures.COMMON), ""),
        figures=[figure for figure in drawn if figure is not None],
        conditions=[overview.condition_table(section) for section in several],
        counts=counts.table(counted) if counted.entries else None,
        facts=counts.facts(counted),
        rules=sorted(rules, key=lambda rule: rule.protocol),
        dates=provenance.dates(found),
    )
