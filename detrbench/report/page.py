"""The HTML page: one file, no network, readable without JavaScript; all text escaped by jinja2."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detrbench import measures
from detrbench.measures import CHOSEN
from detrbench.pictures.gallery import Exhibit
from detrbench.report import (
    charts,
    contents,
    counts,
    figures,
    findings,
    fitting,
    formats,
    labels,
    overview,
    pictures,
    provenance,
    tables,
)
from detrbench.report.album import Album
from detrbench.report.figures import Figure
from detrbench.report.findings import Finding, SuiteFindings
from detrbench.report.provenance import Rule
from detrbench.report.sections import Section
from detrbench.report.tables import Table

if TYPE_CHECKING:
    import jinja2

MOST_CONDITIONS = 5  # drawings of AP against GFLOPs in the overview; the others are in their suites' sections
FOLDER = Path(__file__).resolve().parent.parent / "reports"


@dataclass(frozen=True)
class SectionView:
    """A section with everything the template shows.

    A `compact` one has nothing but counts that its table already holds: its drawings are folded away unless its suite
    asks for them or declares a sweep. `pictures` are drawings of images, loaded when they are opened: each with where
    it lies, a file's name or a data: URI. `generated` says that its AP is not one of COCO, `left_out` what it
    has too many rows for, each where that is so.
    """

    section: Section
    table: Table
    details: list[Table]
    figures: list[Figure]
    compact: bool
    findings: SuiteFindings
    pictures: list[tuple[Exhibit, str]]
    generated: str
    left_out: str
    rules: list[Rule]
    settings: list[tuple[str, str]]
    measured_rows: int


def render(found: list[Section], album: Album | None = None) -> str:
    """The page for these sections; equal sections give equal bytes.

    Args:
        found: the suites.
        album: where pictures are kept beside the page; without one all of them stand in it.
    """
    whole, found = found, fitting.fitted(found)
    groups = contents.groups(found)
    ordered = [section for group in groups for section in group.sections]
    detectors = overview.detectors(ordered)
    machines = list(provenance.machines(ordered))
    every = _overview(ordered, detectors)
    above = len(ordered) == 1 and every.drawn
    script = "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in ("script.js", "chart.js"))
    page: str = _template().render(
        groups=[(group.title, [_view(section, above, album) for section in group.sections]) for group in groups],
        machines=machines,
        all=every,
        suites=[provenance.line(section) for group in contents.groups(whole) for section in group.sections],
        measure_label=measures.label,
        style=(FOLDER / "style.css").read_text(encoding="utf-8"),
        script=script,
        policy=_policy(script),
        label=labels.label,
    )
    return page.strip() + "\n"


@functools.cache
def _template() -> jinja2.Template:
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
    return environment.get_template("page.html.j2")


def _policy(script: str) -> str:
    """The page's Content-Security-Policy: it runs this script alone, and asks nothing of any network."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    sources = {
        "default-src": "'none'",
        "script-src": f"'sha256-{digest}'",
        "style-src": "'unsafe-inline'",  # drawings carry their colours in their elements
        "img-src": "data: file: 'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {allowed}" for name, allowed in sources.items())


def _sortable(value: float | str) -> str:
    """What the script sorts a cell by: six digits are enough to tell any two figures apart that differ."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _prose(text: object) -> str:
    """A suite's own words as HTML: escaped, with what stands between backquotes as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`\n]+)`", r"<code>\1</code>", str(escape(text))))


def _view(section: Section, above: bool, album: Album | None) -> SectionView:
    """`above`: the suite's first chart stands at the head of the page."""
    drawn, left_out = figures.drawings(section), fitting.left_out(section)
    exhibits = pictures.gallery_of(section)
    return SectionView(
        section=section,
        table=tables.main_table(section),
        details=[table for table in formats.behind(section) if not left_out or table.key != "per_class"],
        figures=[figure for figure in drawn if not (above and figure is drawn[0] and figure.data)],
        compact=not any(section.is_measured(measure) for measure in CHOSEN if measure != "complexity")
        and not section.asks("plots")
        and section.sweep is None,
        findings=findings.about(section),
        pictures=[(each, album.keep(section.anchor, each) if album else each.picture.source) for each in exhibits],
        generated=provenance.generated([section]),
        left_out=left_out,
        rules=list(provenance.rules(section)),
        settings=[(key, labels.shown(key, value)) for key, value in section.settings.items() if value is not None],
        measured_rows=sum(bool(cell.records) for cell in section.cells),
    )


@dataclass(frozen=True)
class Overview:
    """What spans the suites.

    `headline` is AP against GFLOPs over all of them, `conditions` what was measured on anything but COCO, each with its
    banner, chart and table; `detectors` holds every method under one protocol, `counts` how published figures were
    counted, `rules` the counting rules in words; each is None or empty where there is nothing to show.
    """

    headline: Figure | None
    conditions: list[Condition]
    detectors: Table | None
    common: str
    counts: Table | None
    facts: list[Finding]
    rules: list[Rule]
    dates: str
    banner: str

    @property
    def drawn(self) -> bool:
        """Whether there is a chart at the head of the page."""
        return self.headline is not None or any(condition.figure for condition in self.conditions)


@dataclass(frozen=True)
class Condition:
    """What was measured at one scale, on one kind of data; `table` is None where it is that of a single suite."""

    title: str
    banner: str
    figure: Figure | None
    table: Table | None


def _overview(found: list[Section], detectors: overview.Detectors) -> Overview:
    headline = charts.headline(found)
    several = len(found) > 1  # all of one suite is that suite
    gathered = [section for section in overview.conditions(found) if provenance.generated([section])]
    counted = counts.counted_rows(found)
    rules = list(dict.fromkeys(rule for section in found for rule in provenance.rules(section, ("complexity",))))
    return Overview(
        headline=figures.of_chart(headline) if headline else None,
        conditions=[
            _condition(section, f"measured-{number}", several or headline is None)
            for number, section in enumerate(gathered[:MOST_CONDITIONS])
        ],
        detectors=overview.detector_table(detectors) if several and detectors.section.entries else None,
        common=next((rule.convention for rule in rules if rule.protocol == measures.COMMON), "") if several else "",
        counts=counts.table(counted) if several and counted.entries else None,
        facts=counts.facts(counted) if several else [],
        rules=sorted(rules, key=lambda rule: rule.protocol),
        dates=provenance.dates(found),
        banner=provenance.generated(found),
    )


def _condition(section: Section, key: str, drawn: bool) -> Condition:
    """`drawn`: it has a chart, which a single suite that has a headline shows beside its table."""
    chart = charts.measured(section, key) if drawn else None
    shared = len(section.spec["suites"]) > 1
    return Condition(
        title=section.condition,
        banner=provenance.generated([section]),
        figure=figures.of_chart(dataclasses.replace(chart, wide=True)) if chart else None,
        table=overview.condition_table(section) if shared else None,
    )
