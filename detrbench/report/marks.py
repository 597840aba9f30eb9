"""The points that a chart may have: what was published and what was measured of each row, with its costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from detrbench import published as published_tables
from detrbench.measures import COMMON, EVALUATED
from detrbench.report import labels
from detrbench.report.entries import Entry, Figure, number
from detrbench.report.identity import Identity
from detrbench.report.sections import Section


@dataclass(frozen=True)
class Axis:
    """What a chart may have across or upwards; `label` stands at the axis, `words` in a sentence."""

    key: str
    label: str
    words: str
    decimals: int = 1


COSTS = {
    axis.key: axis
    for axis in (
        Axis("gflops", "GFLOPs, counted alike (protocol common)", "GFLOPs"),
        Axis("gflops_evaluated", "GFLOPs of the evaluated detector at its image size", "GFLOPs"),
        Axis("gflops_published", "GFLOPs as published, each by its paper's rule", "published GFLOPs", 0),
        Axis("latency", "Latency of one forward, ms", "latency", 2),
        Axis("params", "Parameters, millions", "parameters"),
        Axis("memory", "Memory of one forward, MiB", "memory"),
    )
}
FIGURES = {
    axis.key: axis
    for axis in (Axis("AP", "AP", "AP"), Axis("AP50", "AP50", "AP50"), Axis("APS", "AP of small objects", "APS"),
                 Axis("Corr", "Corr", "Corr", 3))
}  # fmt: skip


@dataclass(frozen=True)
class Mark:
    """One point: a row with a figure, published or measured.

    Attributes:
        row: the id of the table row that it stands for.
        identity: which detector.
        x: costs by key of COSTS.
        y: figures by key of FIGURES.
        spans: 95 % intervals of what was measured, by the same keys.
        seeds: trainings of which it is the mean, with the standard deviation between them.
        epochs: trained for; empty where that is not known.
        source: where it stands: "Focus-DETR, Table 6".
        measured: here, and not by the paper.
        curve: equal for points that a declared sweep joins; empty for a point alone.
        at: where it stands in the sweep.
    """

    row: str
    identity: Identity
    x: Mapping[str, float]
    y: Mapping[str, float]
    spans: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    seeds: tuple[int, float] | None = None
    epochs: str = ""
    source: str = ""
    measured: bool = False
    curve: str = ""
    at: float | None = None

    @property
    def name(self) -> str:
        """The detector and where it stands in its sweep."""
        at = self.identity.kept if self.at is None else self.at
        return self.identity.name if at is None else f"{self.identity.name}, {at:g}"


def published_marks(section: Section) -> Iterator[Mark]:
    """A hollow point for each row with a published AP: at the published cost and at those of the same detector here."""
    for entry in section.entries:
        figures = _published_figures(entry)
        costs = _published_costs(entry) | _counted(entry)
        if section.scale == "paper":
            costs |= _timed(entry)
        if figures and costs:
            yield Mark(
                entry.id,
                entry.identity,
                costs,
                figures,
                epochs=_epochs(section, entry),
                source=_source(entry),
                curve=section.curve(entry),
                at=section.swept(entry),
            )


def measured_marks(section: Section) -> Iterator[Mark]:
    """A filled point for each row with a measured AP, at the costs of the detector that was evaluated."""
    for entry in section.entries:
        figures = _measured_figures(entry)
        known = {key: figure.value for key, figure in figures.items()}
        costs = _timed(entry) | _counted_as_evaluated(entry)
        if "AP" not in known or not costs:
            continue
        backbone = str(entry.changed.get("backbone", entry.identity.backbone))
        yield Mark(
            entry.id,
            replace(entry.identity, backbone=backbone),
            costs,
            known,
            spans=_spans(entry, figures),
            seeds=_seeds(figures),
            epochs=_epochs(section, entry) if section.scale == "paper" else _trained(entry),
            source=f"measured, {section.suite}, protocol {entry.either('accuracy')}",
            measured=True,
            curve=section.curve(entry),
            at=section.swept(entry),
        )


def _measured_figures(entry: Entry) -> dict[str, Figure]:
    rule = entry.either("accuracy")
    found = {
        "AP": entry.figure("accuracy", rule, "ap", "value"),
        "AP50": entry.figure("accuracy", rule, "ap50", "value"),
        "APS": entry.figure("accuracy", rule, "stats", "APS"),
        "Corr": entry.figure("dam", entry.either("dam"), "corr", "value"),
    }
    return {key: figure for key, figure in found.items() if figure is not None}


def _spans(entry: Entry, figures: Mapping[str, Figure]) -> dict[str, tuple[float, float]]:
    latency = entry.figure("latency", entry.first("latency"), "median_ms", "value")
    known = {key: figures[key] for key in ("AP", "AP50") if key in figures} | ({"latency": latency} if latency else {})
    return {key: (f.low, f.high) for key, f in known.items() if f.low is not None and f.high is not None}


def _seeds(figures: Mapping[str, Figure]) -> tuple[int, float] | None:
    """How many trainings an AP is the mean of, and its standard deviation between them; None of a single one."""
    ap = figures.get("AP")
    return (ap.seeds, ap.sd) if ap and ap.sd is not None else None


def _published_figures(entry: Entry) -> dict[str, float]:
    """As printed; nothing of a row without AP."""
    if entry.published is None:
        return {}
    values = entry.published.values
    found = {key: number(values, key) for key in ("AP", "AP50", "APS")} | {"Corr": number(values, "corr_mean")}
    return {key: value for key, value in found.items() if value is not None} if found["AP"] is not None else {}


def _published_costs(entry: Entry) -> dict[str, float]:
    value = number(entry.published.values, "gflops") if entry.published else None
    params = number(entry.published.values, "params_M") if entry.published else None
    found = {"gflops_published": value, "params": params}
    return {key: value for key, value in found.items() if value is not None}


def _counted(entry: Entry) -> dict[str, float]:
    found = {
        "gflops": number(entry.record("complexity", COMMON), "gflops"),
        "params": number(entry.record("complexity", entry.first("complexity")), "params_millions"),
    }
    return {key: value for key, value in found.items() if value is not None}


def _counted_as_evaluated(entry: Entry) -> dict[str, float]:
    """Costs of the detector whose AP was measured: at its own image size, where that is not the paper's."""
    record = entry.record("complexity", EVALUATED)
    if not record:
        return _counted(entry) if entry.counted_is_evaluated else {}
    found = {"gflops_evaluated": number(record, "gflops"), "params": number(record, "params_millions")}
    return {key: value for key, value in found.items() if value is not None}


def _timed(entry: Entry) -> dict[str, float]:
    found = {
        "latency": number(entry.record("latency", entry.first("latency")), "median_ms", "value"),
        "memory": number(entry.record("memory", entry.first("memory")), "forward_mib"),
    }
    return {key: value for key, value in found.items() if value is not None}


def _epochs(section: Section, entry: Entry) -> str:
    """As the paper prints it, else as the cell says at the paper's scale."""
    printed = entry.published.values.get("epochs") if entry.published else None
    if printed is None and section.scale == "paper" and entry.cell is not None:
        printed = (entry.cell.cell.get("resolved") or {}).get("epochs")
    return "" if printed is None else labels.printed(printed)


def _trained(entry: Entry) -> str:
    epochs = len(entry.record("training", entry.first("training")).get("epochs") or [])
    return str(epochs) if epochs else ""


def _source(entry: Entry) -> str:
    assert entry.published is not None
    return f"{published_tables.load(entry.published.table).paper}, {labels.table_name(entry.published.table)}"
