"""One row of a section: a published row, a measured cell, or both, and what may be asked of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from detrbench import statistics
from detrbench.compare import differences
from detrbench.measures import COMMON, EVALUATED, MEASURES, NATIVE
from detrbench.published import PublishedRow
from detrbench.report import identity
from detrbench.report.identity import Identity
from detrbench.results.store import CellResult

NOT_RUN = "not run yet"  # what the results folder says of a measure that nobody has asked for

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """A measured figure: its 95 % interval where it is an estimate; a mean over seeds with its standard deviation."""

    value: float
    low: float | None = None
    high: float | None = None
    sd: float | None = None
    seeds: int = 1


@dataclass(frozen=True)
class Entry:
    """One row: a published row, a measured cell, or both. `id` is unique in its section."""

    id: str
    label: str
    published: PublishedRow | None
    cell: CellResult | None

    @property
    def identity(self) -> Identity:
        """Which detector this is: from its parts and options, else from its printed name or where it comes from."""
        if self.source:
            return identity.of_elsewhere(self.label, self.source)
        model = str(self.cell.cell.get("model")) if self.cell else ""
        found = identity.of_detector(model, self.options)
        return found or identity.of_printed(self.label, self.published.values if self.published else {})

    def record(self, measure: str, protocol: str | None) -> Record:
        """A record of this row's cell, empty where there is none."""
        if self.cell is None or protocol is None:
            return {}
        return self.cell.records.get(measure, {}).get(protocol, {})

    def figure(self, measure: str, protocol: str | None, *path: str) -> Figure | None:
        """A figure of a record: of several trainings their mean; None where the first has none.

        Args:
            measure: its name.
            protocol: of the record.
            path: into the record; to an estimate where it ends with `value`.
        """
        if number(self.record(measure, protocol), *path) is None:
            return None
        records = self._records(measure, protocol)
        known = [(record, value) for record in records if (value := number(record, *path)) is not None]
        values = [value for _, value in known]
        mean, sd = sum(values) / len(values), statistics.spread(values)
        low = high = None
        if path[-1] == "value":
            low, high = _interval([mapping(differences.at(record, path[:-1])) for record, _ in known])
        return Figure(mean, low, high, sd, len(values))

    def _records(self, measure: str, protocol: str | None) -> list[Record]:
        """A record of each training, where those matter to it; of the first alone else."""
        if self.cell is None or protocol is None:
            return []
        trainings = self.cell.trainings if MEASURES[measure].each_seed else [self.cell]
        version = self.record(measure, protocol).get("protocol_version")
        found = [each.records.get(measure, {}).get(protocol) or {} for each in trainings]
        return [record for record in found if record.get("protocol_version") == version]

    def untold(self, measure: str, protocol: str | None) -> str | None:
        """Which of several trainings have no figure, and why."""
        if self.cell is None or protocol is None or not MEASURES[measure].each_seed:
            return None
        gone = [each for each in self.cell.further if protocol not in each.records.get(measure, {})]
        said = [f"{each.id} {differences.without(each, measure)}" for each in gone]
        return f"{len(said)} of {len(self.cell.trainings)} trainings left out: {'; '.join(said)}" if said else None

    @property
    def seeds(self) -> int:
        """How many trainings of this row have an AP."""
        return len(self._records("accuracy", self.either("accuracy")))

    def own(self, measure: str) -> str | None:
        """The protocol of this row's records that answers to the published table; None where only `common` is there."""
        if self.cell is None:
            return None
        found = [name for name in self.cell.records.get(measure, {}) if name not in (COMMON, EVALUATED, NATIVE)]
        listed = [name for name in self.cell.cell.get("protocols") or [] if name in found]
        return next(iter([*listed, *sorted(found)]), None)

    def either(self, measure: str) -> str | None:
        """The published table's protocol, else `common` where that is there."""
        has_common = self.cell is not None and COMMON in self.cell.records.get(measure, {})
        return self.own(measure) or (COMMON if has_common else None)

    def first(self, measure: str) -> str | None:
        """`common` where this row has it, else its first protocol by name."""
        names = sorted(self.cell.records.get(measure, {})) if self.cell is not None else []
        return COMMON if COMMON in names else next(iter(names), None)

    def why(self, measure: str) -> str:
        """Why there is no figure of this measure, as a reader sees it."""
        if self.cell is None:
            return "published only"
        state, why = self.cell.state(measure)
        if state == "running":
            return "not measured: the run has not finished"
        return f"{'failed' if state == 'failed' else 'not measured'}: {why or 'no record'}"

    def official(self, measure: str) -> str | None:
        """Which released weights stand behind a figure, where it is not of a training of ours."""
        envelope = self.cell.envelopes.get(measure, {}) if self.cell else {}
        return f"official weights {envelope['official']}" if envelope.get("official") else None

    def status(self, measures: list[str]) -> str | None:
        """One phrase for a row that has no measured figure at all, else None."""
        if self.cell is None:
            return "published only"
        if self.cell.records:
            return None
        reasons = {self.why(measure) for measure in measures}
        telling = {reason for reason in reasons if not reason.endswith(NOT_RUN)} or reasons
        if len(telling) != 1:
            return None
        reason = telling.pop()
        return "not built yet" if "not built yet" in reason else reason

    @property
    def options(self) -> Record:
        """The options of the detector at the paper's setting."""
        cell = self.cell.cell if self.cell else {}
        counted = cell.get("complexity_options")
        return counted if isinstance(counted, Mapping) else mapping(cell.get("options"))

    @property
    def counted_is_evaluated(self) -> bool:
        """Whether the detector whose operations were counted is the one that was trained, timed and evaluated."""
        return not self.changed

    @property
    def changed(self) -> dict[str, Any]:
        """Options of the evaluated detector that the scale sets to other values than those of the counted one."""
        cell = self.cell.cell if self.cell else {}
        counted = cell.get("complexity_options")
        if not isinstance(counted, Mapping):
            return {}
        return {k: v for k, v in mapping(cell.get("options")).items() if k not in counted or counted[k] != v}

    @property
    def source(self) -> str | None:
        """Where a detector from elsewhere comes from; None for one of ours, and for a published row."""
        return self.cell.cell.get("source") if self.cell else None

    @property
    def interpreter(self) -> Mapping[str, Any]:
        """The versions in the interpreter that ran it, where that was another one than detrbench's."""
        environments = (
            mapping(each.get("environment")) for each in (self.cell.envelopes if self.cell else {}).values()
        )
        return next((mapping(each["interpreter"]) for each in environments if "interpreter" in each), {})

    @property
    def weights_of(self) -> str | None:
        """The row whose weights this one is measured with, where it was not trained itself."""
        return self.cell.cell.get("weights_of") if self.cell else None

    @property
    def began_with(self) -> str | None:
        """What a reader of an AP should know of what its training began with; ImageNet weights go without saying."""
        said = []
        for weights in self.record("training", "training").get("began_with") or []:
            if weights["file"] is None:
                said.append(f"its {weights['part']} began at {weights['source']} (init: none)")
            elif not str(weights["source"]).startswith("https:"):
                heads = ", its class heads anew" if weights["replaced"] else ""
                said.append(
                    f"its {weights['part']} began with {weights['file']}, sha256 {weights['sha256'][:8]}...{heads}"
                )
        return "; ".join(said) or None

    def option(self, key: str) -> Any:
        """A describing value: as published, else as the cell was made."""
        value = self.published.values.get(key) if self.published else None
        if value is None and self.cell is not None:
            value = self.options.get(key)
        return value


def number(record: Record, *path: str) -> float | None:
    """A finite number inside a record, or None."""
    value = differences.at(record, path)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    return float(value)


def _interval(estimates: list[Record]) -> tuple[float | None, float | None]:
    """As the record has it; of several trainings for other seeds too."""
    first = estimates[0]
    if len(estimates) == 1:
        return number(first, "low"), number(first, "high")
    evidence = differences.over_seeds([differences.from_interval(each) for each in estimates])
    return evidence.interval() if math.isfinite(evidence.se) else (None, None)


def mapping(value: Any) -> Mapping[str, Any]:
    """A value that should be a mapping; empty where a file holds something else."""
    return value if isinstance(value, Mapping) else {}
