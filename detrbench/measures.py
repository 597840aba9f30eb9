"""What detrbench measures: one row a measure. Everything else asks here what a measure is like. Imports no torch.

A new measure is a row here, a function in `measure/`, its protocol in `measure/protocols/`, its record in
`results/records.py`, and a column in `report/columns.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

COMMON = "common"  # the protocol that every measure has and that is the same for every method
NATIVE = "native"  # the same rule on a detector's own images, which of one from elsewhere may be of another size
EVALUATED = "evaluated"  # counts the detector whose AP a scale measures, where that is not the paper's

Phase = Literal["counting", "running", "memory", "latency"]
PHASES: tuple[Phase, ...] = ("counting", "running", "memory", "latency")


@dataclass(frozen=True)
class Beside:
    """A file that a measure leaves beside its record.

    Attributes:
        path: within the cell's folder.
        needed: the record is nothing without it, so a record whose file is gone is taken again.
    """

    path: str
    needed: bool = True


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes:
        name: in suites, on the command line and in file names.
        label: in reports.
        phase: when it is taken; the phases follow each other, and within one the cells do.
        function: "module:function" called as `function(detector, dataset, protocol, device, transform=, progress=)`
            for each protocol over the evaluation images; None where `run/steps.py` has a step of its own.
        needs_weights: the values of the weights matter, so they are loaded or trained.
        each_seed: done of every training, where a scale asks for several seeds; all else of the first alone.
        reusable: an equal cell's record may be taken over.
        external: taken of detectors from elsewhere too; the others read what only those of ours tell, or train.
        chosen: suites and `--measure` may name it; what is not chosen is done where others need it.
        beside: the files beside the record.
    """

    name: str
    label: str
    phase: Phase
    function: str | None = None
    needs_weights: bool = False
    each_seed: bool = False
    reusable: bool = True
    external: bool = True
    chosen: bool = True
    beside: tuple[Beside, ...] = ()

    @property
    def timed(self) -> bool:
        """Depends on the machine, and on who else is at work on it."""
        return self.phase in ("memory", "latency")


# In the order in which a cell's measures are taken.
MEASURES: Mapping[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure("complexity", "GFLOPs and parameters", "counting"),
        Measure(
            "training",
            "training",
            "running",
            each_seed=True,
            external=False,
            chosen=False,
            beside=(Beside("checkpoint/model.safetensors"),),
        ),
        # An AP without what each image contributed, and without its detections, is still an AP.
        Measure(
            "accuracy",
            "AP",
            "running",
            needs_weights=True,
            each_seed=True,
            beside=(Beside("accuracy-images.npz", needed=False), Beside("detections.json.gz", needed=False)),
        ),
        Measure(
            "dam",
            "Corr",
            "running",
            "detrbench.measure.dam:measure",
            needs_weights=True,
            each_seed=True,
            external=False,
        ),
        Measure(
            "queries",
            "queries per object",
            "running",
            "detrbench.measure.queries:measure",
            needs_weights=True,
            each_seed=True,
            external=False,
        ),
        Measure("pictures", "pictures", "running", needs_weights=True, external=False, beside=(Beside("traces.npz"),)),
        Measure("memory", "memory", "memory", reusable=False),
        Measure("latency", "latency", "latency", reusable=False),
    )
}
CHOSEN = tuple(measure.name for measure in MEASURES.values() if measure.chosen)
NEED_WEIGHTS = frozenset(measure.name for measure in MEASURES.values() if measure.needs_weights)
TIMED = frozenset(measure.name for measure in MEASURES.values() if measure.timed)


def label(name: str) -> str:
    """What a report calls a measure; a results folder may hold one that is not known here."""
    return MEASURES[name].label if name in MEASURES else name
