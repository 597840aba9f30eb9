"""Where figures come from: rules in words, machines, what was measured of each suite and when."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from detrbench.measures import CHOSEN, label
from detrbench.report import labels
from detrbench.report.entries import number
from detrbench.report.sections import Section


@dataclass(frozen=True)
class Rule:
    """How figures of one measure came about: a protocol in words."""

    measure: str
    protocol: str
    convention: str


def rules(section: Section, of: Iterable[str] = CHOSEN) -> Iterator[Rule]:
    """Each protocol that stands behind a figure of the section, once, in its own words."""
    for measure in of:
        for protocol in section.protocols(measure):
            records = [cell.records.get(measure, {}).get(protocol) for cell in section.cells]
            for convention in dict.fromkeys(str(r.get("convention", "")) for r in records if r):
                yield Rule(label(measure), protocol, convention)


@dataclass(frozen=True)
class Line:
    """What was measured of a suite, on how many images, when."""

    section: Section
    rows: int
    measured: int
    states: list[tuple[str, int]]
    images: str
    dates: str


def line(section: Section) -> Line:
    taken = [(measure, sum(measure in cell.records for cell in section.cells)) for measure in section.measures]
    records = [r for cell in section.cells for r in cell.records.get("accuracy", {}).values()]
    images = sorted({int(n) for r in records if (n := number(r, "num_images")) is not None})
    return Line(
        section=section,
        rows=len(section.entries),
        measured=sum(bool(cell.records) for cell in section.cells),
        states=[(measure, count) for measure, count in taken if count],
        images=", ".join(labels.fixed(n, 0) for n in images) or labels.ABSENT,
        dates=dates([section]) or labels.ABSENT,
    )


def generated(found: list[Section]) -> str:
    """What to say of AP that is none of COCO: "generated images, 96 px: not COCO"; empty where there is none."""
    said: dict[str, None] = {}
    for section in found:
        data = section.settings.get("data")
        if section.is_measured("accuracy") and data is not None and data != "coco":
            size = section.settings.get("image_size")
            said[f"generated images{f', {size} px' if size else ''}: not COCO"] = None
    return "; ".join(said)


def dates(found: list[Section]) -> str:
    """The first and the last day on which a figure was taken."""
    envelopes = [
        e for section in found for cell in section.cells for each in cell.trainings for e in each.envelopes.values()
    ]
    days = sorted(str(envelope["created"])[:10] for envelope in envelopes if envelope.get("created"))
    return " to ".join(dict.fromkeys((days[0], days[-1]))) if days else ""


@dataclass(frozen=True)
class Machine:
    """One environment in which figures were taken, as key and value pairs, and what was taken there."""

    summary: str
    facts: list[tuple[str, str]]
    used_by: list[str]


def machines(found: list[Section]) -> Iterator[Machine]:
    """The distinct environments of all records, in order of appearance."""
    known: dict[str, tuple[Mapping[str, Any], dict[str, None]]] = {}
    for section in found:
        for each in (training for cell in section.cells for training in cell.trainings):
            for measure, envelope in each.envelopes.items():
                environment = envelope.get("environment")
                if isinstance(environment, Mapping):
                    key = json.dumps(environment, sort_keys=True, default=str)
                    used = known.setdefault(key, (environment, {}))[1]
                    used[f"{section.suite}, {section.scale}: {label(measure)}"] = None
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
