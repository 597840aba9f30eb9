"""The HTML page: one file, no network, readable without JavaScript; all text escaped by jinja2."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detrbench.pictures.gallery import Entry
from detrbench.report import figures, findings, labels, pictures, sections, tables
from detrbench.report.figures import Figure
from detrbench.report.sections import Section
from detrbench.report.tables import Table

FOLDER = Path(__file__).resolve().parent.parent / "reports"


@dataclass(frozen=True)
class Rule:
    """How figures of one measure came about: a protocol in words."""

    measure: str
    protocol: str
    convention: str


@dataclass(frozen=True)
class SectionView:
    """A section with everything the template shows."""

    section: Section
    table: Table
    details: list[Table]
    figures: list[Figure]
    pictures: list[Entry]
    findings: list[str]
    rules: list[Rule]
    settings: list[tuple[str, str]]
    measured_rows: int


@dataclass(frozen=True)
class Machine:
    """One environment in which figures were taken, as key and value pairs, and what was taken there."""

    summary: str
    facts: list[tuple[str, str]]
    used_by: list[str]


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
    colours = sections.families(found)
    machines = list(_machines(found))
    page: str = environment.get_template("page.html.j2").render(
        views=[_view(section, colours) for section in found],
        machines=machines,
        overview=[_overview(section) for section in found],
        measures=labels.MEASURES,
        colours=colours,
        style=(FOLDER / "style.css").read_text(encoding="utf-8"),
        script=(FOLDER / "script.js").read_text(encoding="utf-8"),
        label=labels.label,
    )
    return page.strip() + "\n"


def _view(section: Section, colours: Mapping[str, int]) -> SectionView:
    return SectionView(
        section=section,
        table=tables.main_table(section),
        details=tables.detail_tables(section),
        figures=figures.make(section, colours),
        pictures=pictures.make(section),
        findings=findings.make(section),
        rules=list(_rules(section)),
        settings=[(key, labels.shown(key, value)) for key, value in section.settings.items() if value is not None],
        measured_rows=sum(bool(cell.records) for cell in section.cells),
    )


def _rules(section: Section) -> Iterator[Rule]:
    """Each protocol that stands behind a figure of the section, once, in its own words."""
    for measure in ("accuracy", "complexity", "latency", "memory", "dam"):
        for protocol in section.protocols(measure):
            records = [cell.records.get(measure, {}).get(protocol) for cell in section.cells]
            for convention in dict.fromkeys(str(r.get("convention", "")) for r in records if r):
                yield Rule(labels.MEASURES[measure], protocol, convention)


@dataclass(frozen=True)
class Overview:
    """One line of the first table: what was measured of a suite, on how many images, when."""

    section: Section
    rows: int
    measured: int
    states: list[tuple[str, int]]
    images: str
    dates: str


def _overview(section: Section) -> Overview:
    counts = [(measure, sum(measure in cell.records for cell in section.cells)) for measure in section.measures]
    records = [r for cell in section.cells for r in cell.records.get("accuracy", {}).values()]
    images = sorted({int(n) for r in records if (n := sections.number(r, "num_images")) is not None})
    created = sorted(str(e["created"])[:10] for c in section.cells for e in c.envelopes.values() if e.get("created"))
    return Overview(
        section=section,
        rows=len(section.entries),
        measured=sum(bool(cell.records) for cell in section.cells),
        states=counts,
        images=", ".join(labels.fixed(n, 0) for n in images) or labels.ABSENT,
        dates=" to ".join(dict.fromkeys((created[0], created[-1]))) if created else labels.ABSENT,
    )


def _machines(found: list[Section]) -> Iterator[Machine]:
    """The distinct environments of all records, in order of appearance."""
    known: dict[str, tuple[Mapping[str, Any], dict[str, None]]] = {}
    for section in found:
        for cell in section.cells:
            for measure, envelope in cell.envelopes.items():
                environment = envelope.get("environment")
                if isinstance(environment, Mapping):
                    key = json.dumps(environment, sort_keys=True, default=str)
                    used = known.setdefault(key, (environment, {}))[1]
                    used[f"{section.suite}, {section.scale}: {labels.MEASURES.get(measure, measure)}"] = None
    for environment, used in known.values():
        yield Machine(hardware(environment), list(_flat(environment)), list(used))


def hardware(environment: Mapping[str, Any]) -> str:
    """The machine in a few words: its accelerators, its processor, the cores that were used."""
    gpus = environment.get("gpus")
    words = [str(name) for name in gpus] if isinstance(gpus, list) else []
    words += [str(environment["cpu"])] if environment.get("cpu") else []
    words += [f"{environment['cores']} cores"] if environment.get("cores") else []
    return ", ".join(dict.fromkeys(words)) or "hardware not recorded"


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{key}.")
        elif item is not None and item != "" and item != []:
            yield f"{prefix}{key}", labels.shown(str(key), item)
