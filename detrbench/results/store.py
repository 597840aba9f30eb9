"""A results folder as a whole: its suites, their cells, and all figures as a table. Imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detrbench import renamed, yaml12
from detrbench.errors import UsageError
from detrbench.files import write_changed
from detrbench.measures import MEASURES
from detrbench.results import reading
from detrbench.results.folder import CellFolder, Warn, read_json, tell
from detrbench.words import json_text, problem_of_name

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class CellResult:
    """All that is known of one cell, read back from its folder.

    `cell` is cell.yaml, `status` is status.json, `records[measure][protocol]` a record as JSON, and
    `envelopes[measure]` what was stored around it (key, environment, seconds, created). `further` are its other
    trainings, which differ in their seed alone.
    """

    id: str
    suite: str
    scale: str
    folder: Path
    cell: dict[str, Any]
    status: dict[str, Any]
    records: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    envelopes: dict[str, dict[str, Any]] = field(default_factory=dict)
    further: tuple[CellResult, ...] = ()

    @property
    def given(self) -> bool:
        """Whether its weights, or its predictions, came as a file: then it is no training of its recipe."""
        return any(
            envelope.get("weights") in _GIVEN for name, envelope in self.envelopes.items() if MEASURES[name].each_seed
        )

    @property
    def trainings(self) -> list[CellResult]:
        """Each training of the cell by itself, the first one first."""
        return [dataclasses.replace(self, further=()), *self.further]

    def state(self, measure: str) -> tuple[str, str | None]:
        """(state, why) of a measure; one that nobody has run yet is `not_measured`."""
        entry = self.status.get("measures", {}).get(measure, {})
        return entry.get("state", "not_measured"), entry.get("why", "not run yet") if not entry else entry.get("why")


_GIVEN = ("checkpoint", "elsewhere")  # what records say of weights that were not trained here


class ResultsStore:
    """A results folder. `warn` gets one line for each file that is truncated or not ours; such files are ignored."""

    def __init__(self, root: Path | str, warn: Warn = None) -> None:
        self.root = Path(root)
        self.warn = warn

    def folder(self, suite: str, scale: str, name: str) -> CellFolder:
        """The folder of the cell called `name` (`<id>-<hash8>`)."""
        return CellFolder(self._place(suite, scale) / "cells" / name)

    def write_suite(self, suite: str, scale: str, resolved: Mapping[str, Any]) -> None:
        """Keeps the resolved suite beside its cells, so that a report needs nothing else."""
        write_changed(self._place(suite, scale) / "suite.yaml", yaml12.dump(dict(resolved)))

    def read_suite(self, suite: str, scale: str) -> dict[str, Any]:
        """The resolved suite; empty where its file is missing or broken."""
        return _read_yaml(self._place(suite, scale) / "suite.yaml", self.warn) or {}

    def called(self, suite: str) -> str:
        """What a suite is called here, whichever of its names is given."""
        return renamed.owner(self.root / suite)

    def suites(self) -> list[tuple[str, str]]:
        """Sorted (suite, scale) pairs that have cells."""
        found = {path.parent.parent for path in self.root.glob("*/*/cells/*") if path.is_dir()}
        return sorted((renamed.owner(path.parent), path.name) for path in found)

    def ids(self, suite: str, scale: str) -> set[str]:
        """The ids of the cells of one suite at one scale."""
        return {cell["id"] for path in self.folders(suite, scale) if (cell := self._read_description(path))}

    def cells(self, suite: str, scale: str) -> list[CellResult]:
        """The cells of one suite at one scale, in the suite's order.

        A variant that was run with other settings (`--set`) has a folder for each; that of the last run counts,
        whatever the clock said then. Trainings with further seeds stand in the cell whose trainings they are.
        """
        chosen, newest = self._chosen(suite, scale), dict[str, CellResult]()
        for path in self.folders(suite, scale):
            result = self.read_cell(path)
            if result is None:
                continue
            known = newest.get(result.id)
            if known is None or _counts(result, chosen) >= _counts(known, chosen):
                newest[result.id] = result
        return sorted(_gathered(newest.values()), key=lambda result: (result.cell.get("index", 0), result.id))

    def choose(self, suite: str, scale: str, folders: Mapping[str, str]) -> None:
        """Keeps which folder of each cell a run is at: id -> name of the folder. Other cells stay as they were."""
        write_changed(self._choice(suite, scale), json_text({**self._chosen(suite, scale), **folders}) + "\n")

    def _choice(self, suite: str, scale: str) -> Path:
        return self._place(suite, scale) / "cells.json"

    def _chosen(self, suite: str, scale: str) -> dict[str, str]:
        path = self._choice(suite, scale)
        found = read_json(path, self.warn) or {}
        wrong = reading.misfit(found, dict[str, str])
        if wrong:
            tell(self.warn, f"{path}: ignored: {wrong}")
        return {} if wrong else found

    def read_cell(self, path: Path) -> CellResult | None:
        """One cell's folder, or None where it has no readable cell.yaml."""
        cell = self._read_description(path)
        if cell is None:
            return None
        folder = CellFolder(path)
        envelopes = {m: e for m in MEASURES if (e := folder.read_envelope(m, self.warn)) is not None}
        return CellResult(
            id=cell["id"],
            suite=renamed.owner(path.parent.parent.parent),
            scale=path.parent.parent.name,
            folder=path,
            cell=cell,
            status=folder.read_status(self.warn),
            records={measure: envelope.pop("records") for measure, envelope in envelopes.items()},
            envelopes=envelopes,
        )

    def _place(self, suite: str, scale: str) -> Path:
        return renamed.place(self.root, suite) / scale

    def folders(self, suite: str, scale: str) -> list[Path]:
        """The folders of the cells of one suite at one scale."""
        return sorted(path for path in (self._place(suite, scale) / "cells").glob("*") if path.is_dir())

    def _read_description(self, path: Path) -> dict[str, Any] | None:
        """cell.yaml, where it is there and names a cell."""
        file = CellFolder(path).cell
        cell = _read_yaml(file, self.warn)
        if cell is None:
            return None
        problem = reading.misfit(cell, reading.Description) or problem_of_name(cell.get("id", ""))
        if problem:
            tell(self.warn, f"{file}: ignored: {problem}")
            return None
        return cell

    def trainings(self, suite: str, scale: str) -> list[CellResult]:
        """The cells, and those of further seeds behind the first of each."""
        return [each for cell in self.cells(suite, scale) for each in cell.trainings]

    def frame(self, suite: str | None = None, scale: str | None = None) -> pd.DataFrame:
        """One row a cell, measure and protocol: suite, scale, cell, model, measure, protocol, state, why, figures.

        Figures are the record's numbers under dotted names (`gflops`, `ap.value`, `gflops_by_part.encoder`).
        """
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for name, at in self.suites():
            if suite in (None, name) and scale in (None, at):
                rows += [row for each in self.trainings(name, at) for row in _rows(each)]
        return pd.DataFrame(rows)


def _gathered(results: Iterable[CellResult]) -> Iterator[CellResult]:
    """The results with those of further seeds in the cell that they are trainings of.

    One whose cell is not there stands alone. One that differs from it in more than the seed is of other settings, and
    given weights are not averaged with trainings.
    """
    known = {result.id: result for result in results}
    further: dict[str, list[CellResult]] = {}
    for result in known.values():
        first = known.get(result.cell.get("seed_of") or "")
        if first is None:
            further.setdefault(result.id, [])
        elif _but_for_the_seed(result) == _but_for_the_seed(first) and first.given == result.given:
            further.setdefault(first.id, []).append(result)
    for id_, others in further.items():
        yield dataclasses.replace(known[id_], further=tuple(sorted(others, key=_seed)))


def _but_for_the_seed(result: CellResult) -> list[Any]:
    resolved = {name: value for name, value in result.cell.get("resolved", {}).items() if name != "seed"}
    return [resolved, *(result.cell.get(name) for name in ("model", "options", "checkpoint"))]


def _seed(result: CellResult) -> tuple[int, str]:
    return int(result.cell.get("resolved", {}).get("seed") or 0), result.id


def _counts(result: CellResult, chosen: Mapping[str, Any]) -> tuple[bool, str]:
    """Orders the folders of one cell: what the last run was at; among folders older than that note, by their dates."""
    return chosen.get(result.id) == result.folder.name, str(result.status.get("updated", ""))


def _read_yaml(path: Path, warn: Warn) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        value = yaml12.load(path).value
    except UsageError as error:
        tell(warn, f"{error.message}: ignored")
        return None
    if not isinstance(value, dict):
        tell(warn, f"{path}: ignored: expected a mapping")
        return None
    return value


def _rows(result: CellResult) -> Iterator[dict[str, Any]]:
    head = {"suite": result.suite, "scale": result.scale, "cell": result.id, "model": result.cell.get("model")}
    for measure in MEASURES:
        if measure not in result.records and measure not in result.status.get("measures", {}):
            continue
        state, why = result.state(measure)
        for protocol, record in (result.records.get(measure) or {"": {}}).items():
            figures = _figures(record, "")
            yield {**head, "measure": measure, "protocol": protocol, "state": state, "why": why, **figures}


def _figures(value: Mapping[str, Any], prefix: str) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, item in value.items():
        if isinstance(item, Mapping):
            figures |= _figures(item, f"{prefix}{name}.")
        elif isinstance(item, int | float) and not isinstance(item, bool):
            figures[f"{prefix}{name}"] = item
    return figures
