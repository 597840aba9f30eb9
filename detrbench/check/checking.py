"""A check of one suite: ask every budget, decide, time again what is unclear, decide again. Bounded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detrbench.check import baselines, judge
from detrbench.check.budgets import SuiteBudgets
from detrbench.check.judge import FALSE_ALARMS, Judgement
from detrbench.environment import hardware
from detrbench.errors import DetrbenchError, EnvironmentLacking, NothingSelected
from detrbench.results import address
from detrbench.results.store import CellResult, ResultsStore

Note = Callable[[str], None]


@dataclass(frozen=True)
class CheckOptions:
    """What the command line asked for. `overrides`, `data` and `limit` are those that the results were made with."""

    results: Path = Path("results")
    baselines: Path = Path("baselines")
    scale: str | None = None
    retries: int = 2
    device: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    data: Path | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Checked:
    """The outcome for one suite. `looks` says how often noisy budgets were judged at most."""

    suite: str
    scale: str
    judgements: list[Judgement]
    looks: int

    def count(self, *statuses: str) -> int:
        """How many judgements have one of these."""
        return sum(each.status in statuses for each in self.judgements)

    @property
    def exit_code(self) -> int:
        """1 findings; else 4 something could not be measured; else 6 unclear; else 0."""
        if self.count("broken", "missing"):
            return 1
        if self.count("unmeasured"):
            return 4
        return 6 if self.count("unclear") else 0

    @property
    def promise(self) -> str:
        """What the check says of its own mistakes."""
        noisy = sum(each.evidence is not None and not each.evidence.exact for each in self.judgements)
        return (
            f"{noisy} noisy comparison{'' if noisy == 1 else 's'}: if every budget is kept, the probability of any "
            f"false alarm is at most {FALSE_ALARMS:.0%}, over up to {self.looks} look{'' if self.looks == 1 else 's'}"
        )


def scale_of(budgets: SuiteBudgets, options: CheckOptions) -> str:
    """As given, else as the file of budgets says, else as `run` would choose."""
    return budgets.loaded.suite.pick_scale(options.scale or budgets.scale, options.data is not None)


def results_of(budgets: SuiteBudgets, scale: str, options: CheckOptions, warn: Note) -> dict[str, CellResult]:
    """The suite's cells with results, by id; those that are built, or from elsewhere.

    Raises:
        EnvironmentLacking: there are none at all, so nothing can be said of any budget.
    """
    suite, expected = budgets.loaded.suite.name, set(_expected(budgets, scale, options))
    found = ResultsStore(options.results, warn).cells(suite, scale)
    cells = {cell.id: cell for cell in found if cell.id in expected}
    if not any(cell.records or cell.status.get("measures") for cell in cells.values()):
        hint = f"detrbench run {suite} --scale {scale} --results {options.results}"
        raise EnvironmentLacking(f"no results of {suite} at scale {scale} in {options.results}", hint)
    return cells


def _expected(budgets: SuiteBudgets, scale: str, options: CheckOptions) -> list[str]:
    from detrbench import models

    built = set(models.names())
    cells = [cell for cell in budgets.loaded.rows(scale, options.overrides) if not cell.published_only]
    return [cell.id for cell in cells if not cell.is_ours or cell.model in built]


def check(budgets: SuiteBudgets, options: CheckOptions, note: Note) -> Checked:
    """Judges all budgets of a suite.

    Args:
        budgets: from `budgets.load`.
        options: where results and baselines are.
        note: gets a line for each thing worth knowing.

    Raises:
        NothingSelected: no budgets.
        EnvironmentLacking: no results.
    """
    suite, scale = budgets.loaded.suite.name, scale_of(budgets, options)
    if not budgets.budgets:
        raise NothingSelected(f"{suite}: no budgets", hint=f"write some into budgets/{suite}.yaml; see docs/ci.md")
    known = baselines.load(options.baselines, suite, scale)
    uses_baseline = any(each.budget.bound.reference == "baseline" for each in budgets.budgets)
    looks = 1 + options.retries
    cells = results_of(budgets, scale, options, note)
    expected = _expected(budgets, scale, options)
    only = budgets.cell and address.complete(f"cell of {suite}", budgets.cell, expected)
    asked = _about(only, judge.ask(budgets.budgets, cells, known))
    settled = _decide(asked, looks)
    for look in range(1, looks):
        unclear = [each for each in settled if judge.is_open(each) and each.again]
        if not unclear:
            break
        processes = 3 * 2 ** (look - 1)
        note(f"{suite}: {len(unclear)} unclear; timing again in {processes} processes (look {look + 1} of {looks})")
        why_not = _time_again(budgets, scale, options, cells, processes, note)
        if why_not:
            settled = [_with_note(each, f"not timed again: {why_not}") if each in unclear else each for each in settled]
            break
        cells = results_of(budgets, scale, options, note)
        settled = _replaced(settled, judge.ask(budgets.budgets, cells, known), looks)
    gone = judge.cells_expected(expected, cells, known, uses_baseline)
    return Checked(suite, scale, [*settled, *_about(only, gone)], looks)


def _about(cell: str | None, judgements: list[Judgement]) -> list[Judgement]:
    """Those of one cell; all where none is chosen."""
    return [each for each in judgements if cell in (None, each.cell)]


def _decide(asked: list[Judgement], looks: int) -> list[Judgement]:
    """The open ones decided together, in their places."""
    decided = iter(judge.decide([each for each in asked if judge.is_open(each)], looks))
    return [next(decided) if judge.is_open(each) else each for each in asked]


def _replaced(settled: list[Judgement], asked: list[Judgement], looks: int) -> list[Judgement]:
    """What an earlier look decided stays; what can be timed again is judged by the new timing alone."""
    anew = {(each.name, each.cell): each for each in asked}
    again = [each for each in settled if judge.is_open(each) and each.again]
    fresh = iter(_decide([anew[each.name, each.cell] for each in again], looks))
    return [next(fresh) if each in again else each for each in settled]


def _with_note(judgement: Judgement, text: str) -> Judgement:
    return dataclasses.replace(judgement, notes=(*judgement.notes, text))


def _time_again(
    budgets: SuiteBudgets,
    scale: str,
    options: CheckOptions,
    cells: Mapping[str, CellResult],
    processes: int,
    note: Note,
) -> str | None:
    """Times all cells of the suite anew, together; says why where that cannot be. Imports torch."""
    envelopes = [envelope for cell in cells.values() if (envelope := cell.envelopes.get("latency"))]
    device = options.device or str(envelopes[0].get("device") or "cpu")
    then = {hardware(envelope.get("environment") or {}, envelope.get("device")) for envelope in envelopes}
    try:
        from detrbench.environment import pick_device
        from detrbench.run import execute as runs

        chosen = runs.RunOptions(
            results=options.results,
            scale=scale,
            overrides=options.overrides,
            measures=("latency",),
            data=options.data,
            limit=options.limit,
            fresh=True,
            device=pick_device(device),
            processes=processes,
        )
        prepared = runs.prepare(budgets.loaded, chosen)
        here = hardware(prepared.environment, chosen.device)
        if then != {here}:
            return f"the results are of other hardware ({', '.join(sorted(then))}) than this ({here})"
        due = [item for item in prepared.items if item.state == "todo"]
        if {item.folder.path.resolve() for item in due} != {
            cell.folder.resolve() for cell in cells.values() if "latency" in cell.records
        }:
            return "the results were made with other settings; give the same --set, --data and --limit as to run"
        failed = [each for each in runs.execute(prepared, _Quiet(note)) if each.state == "failed"]
    except DetrbenchError as error:
        return error.message
    return f"{failed[0].item.cell.id}: {failed[0].why}" if failed else None


class _Quiet:
    """Tells of nothing but what ends."""

    def __init__(self, note: Note) -> None:
        self.note = note

    def begin(self, items: Any) -> None: ...

    def start(self, item: Any) -> None: ...

    def advance(self, item: Any, fraction: float | None, text: str, milestone: bool = False) -> None: ...

    def end(self, outcome: Any) -> None:
        if outcome.state != "done":
            self.note(f"{outcome.item.cell.id}: latency {outcome.state}: {outcome.why}")

    def close(self) -> None: ...
