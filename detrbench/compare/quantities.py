"""The quantities that `compare`, `check` and findings speak of, and where each stands in a cell's records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from detrbench.errors import unknown_name


@dataclass(frozen=True)
class Quantity:
    """One quantity.

    Attributes:
        path: into the record of `measure`.
        better: which direction is welcome.
        margin: a difference up to this size is called the same; a share where `relative` is set.
        relative: two of them are compared by ratio, not by difference.
        exact: free of noise, on every machine the same.
    """

    name: str
    label: str
    unit: str
    measure: str
    path: tuple[str, ...]
    better: Literal["higher", "lower"]
    margin: float
    decimals: int
    relative: bool = False
    exact: bool = False


QUANTITIES: Mapping[str, Quantity] = {
    quantity.name: quantity
    for quantity in (
        Quantity("ap", "AP", "points", "accuracy", ("ap",), "higher", 0.2, 1),
        Quantity("ap50", "AP50", "points", "accuracy", ("ap50",), "higher", 0.2, 1),
        Quantity("gflops", "GFLOPs", "", "complexity", ("gflops",), "lower", 0.001, 2, relative=True, exact=True),
        Quantity("params", "Params", "M", "complexity", ("params_millions",), "lower", 0.001, 2, True, True),
        Quantity("latency", "Latency", "ms", "latency", ("median_ms",), "lower", 0.02, 2, relative=True),
        Quantity("memory", "Memory, forward", "MiB", "memory", ("forward_mib",), "lower", 0.01, 1, relative=True),
        Quantity(
            "training_memory", "Memory, training", "MiB", "memory", ("training_step_mib",), "lower", 0.01, 1, True
        ),
        Quantity("corr", "Corr", "", "dam", ("corr",), "higher", 0.01, 3),
        Quantity("queries", "Queries per object above 0.7", "", "queries", ("per_object", "0.7"), "higher", 0.05, 2),
    )
}
_ALSO = {"latency_ms": "latency"}


def named(name: str) -> Quantity:
    """A quantity by name; UsageError for one that is not known."""
    name = _ALSO.get(name, name)
    if name not in QUANTITIES:
        raise unknown_name("figure", name, QUANTITIES)
    return QUANTITIES[name]
