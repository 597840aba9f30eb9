"""The detectors with ResNet-50 side by side: published AP, and costs as they were counted here.

Costs are those of `baselines/complexity`, which `make check-self` holds exactly; APs are those of the published rows
that the suites say a detector answers to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tables import code, table

from detrbench import models, published, yaml12
from detrbench.measures import COMMON
from detrbench.report import identity, labels
from detrbench.suite import loading as suites
from detrbench.suite.cells import Cell
from detrbench.weights import catalogue

# Sine positions, in which code bases and configurations differ, and which change no detector's cost.
CONVENTIONS = ("position_temperature", "position_offset")
BASELINE = Path(__file__).resolve().parents[2] / "baselines" / "complexity" / "paper" / "any.yaml"


@dataclass(frozen=True)
class Printed:
    """A published AP on COCO val2017."""

    ap: float
    source: str


@dataclass(frozen=True)
class Detector:
    """One detector at its default options; `published` has its best AP by epochs of training."""

    model: str
    name: str
    gflops: float
    params: float
    published: Mapping[int, Printed]

    def ap(self, epochs: int) -> float:
        """The AP after so many epochs; below all others where none is published."""
        return self.published[epochs].ap if epochs in self.published else -1.0


def side_by_side() -> str:
    """A table for each length of training, the cheapest first; bold where no other has its AP for as few GFLOPs."""
    found = sorted(detectors(), key=lambda detector: detector.gflops)
    lengths = sorted({epochs for detector in found for epochs in detector.published})
    rest = ", ".join(code(detector.model) for detector in found if not detector.published)
    return "\n\n".join([*(_trained_for(epochs, found) for epochs in lengths), f"No AP is published of {rest}."])


def _trained_for(epochs: int, found: list[Detector]) -> str:
    rows = (_row(detector, epochs, found) for detector in found if epochs in detector.published)
    columns = ("detector", "model", "GFLOPs:", "M parameters:", "AP:", "printed in", "released weights:")
    return f"## Trained for {epochs} epochs\n\n{table(columns, rows)}"


def _row(detector: Detector, epochs: int, found: list[Detector]) -> list[str]:
    printed = detector.published[epochs]
    ap = f"{printed.ap:.1f}"
    return [
        detector.name,
        code(detector.model),
        f"{detector.gflops:.1f}",
        f"{detector.params:.1f}",
        ap if is_beaten(detector, epochs, found) else f"**{ap}**",
        printed.source,
        str(len(list(catalogue.of_model(detector.model))) or ""),
    ]


def is_beaten(detector: Detector, epochs: int, found: list[Detector]) -> bool:
    """Whether another one, trained as long, has at least as much AP for fewer GFLOPs, or more for as many."""
    cost, ap = detector.gflops, detector.ap(epochs)
    return any(
        (other.gflops < cost and other.ap(epochs) >= ap) or (other.gflops <= cost and other.ap(epochs) > ap)
        for other in found
    )


def detectors() -> Iterator[Detector]:
    """Every detector of the suite `complexity`."""
    counted = yaml12.load(BASELINE).value["cells"]
    printed = list(_printed())
    for cell in suites.load("complexity").cells("paper"):
        assert cell.model is not None
        name = identity.of_detector(cell.model, {})
        best: dict[int, Printed] = {}
        for answering, epochs, figure in printed:
            if _same(answering, cell.model) and (epochs not in best or figure.ap > best[epochs].ap):
                best[epochs] = figure
        costs = (counted[cell.id][figure][COMMON]["value"] for figure in ("gflops", "params"))
        yield Detector(cell.model, name.name if name else cell.model, *costs, best)


def _printed() -> Iterator[tuple[Cell, int, Printed]]:
    """The cells that answer to a published row with AP and epochs, with these."""
    for name in suites.names():
        suite = suites.load(name)
        if suite.suite.published is None or "paper" not in suite.suite.scales:
            continue
        table = published.load(suite.suite.published)
        if not labels.table_name(table.reference).startswith("Table"):
            continue  # figures and READMEs repeat the tables, or begin with weights of another kind
        for cell in suite.cells("paper"):
            values = table.select(cell.row).values if cell.model and cell.row else {}
            if isinstance(values.get("AP"), int | float) and isinstance(values.get("epochs"), int):
                source = f"{table.paper}, {labels.table_name(table.reference)}"
                yield cell, values["epochs"], Printed(float(values["AP"]), source)


def _same(cell: Cell, model: str) -> bool:
    """Whether a cell is that detector at its default options, by whichever code base."""
    if cell.model != model:
        return False
    source = {"source": cell.complexity_options["source"]} if "source" in cell.complexity_options else {}
    found, plain = models.resolve(model, cell.complexity_options), models.resolve(model, source)
    differing = {key for key in found.options if found.options[key] != plain.options.get(key)}
    return found.parts == plain.parts and differing <= {*CONVENTIONS}
