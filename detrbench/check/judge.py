"""Whether budgets hold. Every budget is a question with three answers: yes, no, and nobody can know.

A noisy figure *breaks* its budget only where noise as an explanation is ruled out, and *holds* it only where a breach
is. Many budgets are asked at once and may be measured more than once, so the first is judged for the whole check: with
Holm's procedure over all noisy budgets and an equal share for each look, the probability that a check in which every
budget is kept raises any alarm is at most `FALSE_ALARMS`. A budget that is broken by however little passes with at most
the same probability. Figures without noise, and the absolute AP of one training on its fixed images, are facts: they
are just compared. Over several seeds a budget is about the method, and its evidence holds for other seeds and images.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from detrbench import statistics
from detrbench.check.baselines import Baselines
from detrbench.check.budgets import PlacedBudget
from detrbench.compare import differences
from detrbench.compare.differences import Difference, Reading
from detrbench.measures import COMMON
from detrbench.results.store import CellResult
from detrbench.statistics import Evidence
from detrbench.suite.expressions import Term

Status = Literal["holds", "broken", "missing", "unmeasured", "unclear"]

FALSE_ALARMS = 0.05
EQUAL = 1e-6  # relative: figures without noise that are closer than this are equal


@dataclass(frozen=True)
class Judgement:
    """What became of one budget at one cell.

    Attributes:
        status: `missing` (a cell, a figure or a baseline that should be there) counts as a finding like `broken`;
            `unmeasured` could not be measured here; `unclear` was measured and cannot be told.
        found: the figure, or difference, with its interval, in words.
        evidence: what is compared with `limit`; None where there is nothing to compare.
        again: whether measuring again can tell more.
    """

    name: str
    cell: str
    status: Status
    found: str
    placed: PlacedBudget | None = None
    evidence: Evidence | None = None
    limit: float = 0.0
    again: bool = False
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The budget as written, or what was expected."""
        return self.placed.budget.text if self.placed else self.name


def ask(budgets: Iterable[PlacedBudget], cells: Mapping[str, CellResult], baselines: Baselines) -> list[Judgement]:
    """Every budget at every cell that it is about; noisy ones are still `unclear`, see `decide`.

    Args:
        budgets: of one suite at one scale.
        cells: its results by id, those of published rows left out.
        baselines: to compare with.
    """
    asked = []
    for placed in budgets:
        ids = placed.cells(cells)
        if not ids:
            asked.append(Judgement(placed.name, placed.budget.term.cell or "", "missing", "no such cell", placed))
        asked += [_ask_one(placed, cells[id_], cells, baselines) for id_ in ids]
    return asked


def _ask_one(
    placed: PlacedBudget, cell: CellResult, cells: Mapping[str, CellResult], baselines: Baselines
) -> Judgement:
    budget, bound = placed.budget, placed.budget.bound
    reading = _read(cell, budget.term)
    if isinstance(reading, Judgement):
        return dataclasses.replace(reading, name=placed.name, placed=placed)
    blank = Judgement(placed.name, cell.id, "unclear", _shown(reading), placed)
    if bound.reference is None:
        fact = reading.quantity.measure == "accuracy" and len(reading.trainings) == 1
        evidence = Evidence(reading.evidence.value) if fact else reading.evidence
        return _compared(blank, reading, Difference(evidence), bound.offset)
    if bound.reference == "baseline":
        other: Reading | str = baselines.reading(cell.id, reading)
        if other == "":
            found = f"{_shown(reading)}, but it is not in the baseline"
            return dataclasses.replace(blank, status="missing", found=found)
        if isinstance(other, str):
            return dataclasses.replace(blank, found=f"{_shown(reading)}: {other}")
    else:
        target = cells.get(str(bound.reference.cell))
        if target is None:
            return dataclasses.replace(blank, status="missing", found=f"no such cell: {bound.reference.cell}")
        term = dataclasses.replace(bound.reference, protocol=bound.reference.protocol or reading.protocol)
        found_other = _read(target, term)
        if isinstance(found_other, Judgement):
            return dataclasses.replace(found_other, name=placed.name, placed=placed)
        other = found_other
    return _against(blank, reading, other)


def _against(blank: Judgement, reading: Reading, other: Reading) -> Judgement:
    """Holds a reading against another: by ratio, by difference, or, without noise, by value."""
    assert blank.placed is not None
    bound = blank.placed.budget.bound
    said = f"{_shown(reading)} against {_shown(other)}"
    blank = dataclasses.replace(blank, found=said)
    found = differences.difference(reading, other)
    if not found.comparable:
        return dataclasses.replace(blank, notes=found.notes)
    if reading.evidence.exact and other.evidence.exact and reading.quantity.measure != "accuracy":
        limit = bound.factor * other.evidence.value + bound.offset
        return _compared(blank, reading, Difference(reading.evidence, found.notes), limit)
    if reading.quantity.relative:
        return _compared(blank, reading, found, bound.factor)
    if bound.factor != 1:
        plain = reading.evidence.minus(other.evidence.scaled(bound.factor))
        found = Difference(plain, (*found.notes, "unpaired, for its factor"))
    return _compared(blank, reading, found, bound.offset)


def _compared(blank: Judgement, reading: Reading, found: Difference, limit: float) -> Judgement:
    """With the evidence filled in; what has no noise is decided at once."""
    assert blank.placed is not None
    timed = reading.quantity.measure == "latency"
    evidence, operator = found.evidence, blank.placed.budget.operator
    about = ["one seed: of this training, not of the method"] if found.about == "training" else []
    notes = tuple(dict.fromkeys([*found.notes, *about, *(reading.notes if timed else ())]))
    text = blank.found + _interval(evidence, reading, blank.placed.budget.bound.reference is not None)
    asked = dataclasses.replace(blank, found=text, evidence=evidence, limit=limit, again=timed, notes=notes)
    if not evidence.exact:
        return asked
    slack = EQUAL * max(abs(limit), 1e-12)
    distance = evidence.value - limit
    kept = {"<=": distance <= slack, ">=": distance >= -slack, "==": abs(distance) <= slack}[operator]
    return dataclasses.replace(asked, status="holds" if kept else "broken", again=False)


def _read(cell: CellResult, term: Term) -> Reading | Judgement:
    """The figure that a term asks for; where one of a cell's trainings lacks it, what became of that."""
    reading = differences.read(cell, term.quantity, term.protocol)
    if reading is None:
        return Judgement("", cell.id, *_lacking(cell, term))
    further = cell.further if reading.trainings else ()
    lacking = next((each for each in further if differences.read(each, term.quantity, term.protocol) is None), None)
    if lacking is None:
        return reading
    status, found = _lacking(lacking, term)
    return Judgement("", cell.id, status, f"{lacking.id}: {found}")


def _lacking(cell: CellResult, term: Term) -> tuple[Status, str]:
    state, why = cell.state(term.quantity.measure)
    if state == "done":
        why = f"no figure under protocol {term.protocol or COMMON}"
    status: Status = "missing" if state == "failed" else "unmeasured"
    return status, f"{term.quantity.measure} {'failed' if state == 'failed' else 'not measured'}: {why or 'no record'}"


def decide(asked: list[Judgement], looks: int) -> list[Judgement]:
    """One look at the budgets that are still open; each of `looks` has an equal share of the false alarms.

    Returns:
        The judgements, those that the figures allow no decision on still `unclear`.
    """
    level = FALSE_ALARMS / looks
    p_values = [(_p_broken(each), _p_kept(each)) for each in asked]
    broken = statistics.holm([p for p, _ in p_values], level)
    decided = []
    for each, (_, p_kept), is_broken in zip(asked, p_values, broken):
        status: Status = "broken" if is_broken else "holds" if p_kept <= level else "unclear"
        decided.append(dataclasses.replace(each, status=status))
    return decided


def is_open(judgement: Judgement) -> bool:
    """Whether there is evidence that has not decided it yet."""
    return judgement.status == "unclear" and judgement.evidence is not None


def _p_broken(judgement: Judgement) -> float:
    assert judgement.evidence is not None
    assert judgement.placed is not None
    upper = judgement.placed.budget.operator == "<="
    return judgement.evidence.p_above(judgement.limit) if upper else judgement.evidence.p_below(judgement.limit)


def _p_kept(judgement: Judgement) -> float:
    assert judgement.evidence is not None
    assert judgement.placed is not None
    upper = judgement.placed.budget.operator == "<="
    return judgement.evidence.p_below(judgement.limit) if upper else judgement.evidence.p_above(judgement.limit)


def _shown(reading: Reading) -> str:
    quantity = reading.quantity
    return f"{reading.evidence.value:.{quantity.decimals}f}{f' {quantity.unit}' if quantity.unit else ''}"


def _interval(evidence: Evidence, reading: Reading, compared: bool) -> str:
    if evidence.exact:
        return ""
    what = "ratio" if reading.quantity.relative and compared else "difference" if compared else ""
    decimals = 3 if what == "ratio" else reading.quantity.decimals
    if math.isinf(evidence.se):
        return f", {what} {evidence.value:.{decimals}f}, noise unknown"
    low, high = evidence.interval()
    value = f", {what} {evidence.value:.{decimals}f}" if what else ""
    return f"{value} [{low:.{decimals}f}, {high:.{decimals}f}]"


def cells_expected(
    expected: Iterable[str], cells: Mapping[str, CellResult], baselines: Baselines, uses_baseline: bool
) -> list[Judgement]:
    """Cells of the suite or the baseline without results; where a baseline is used, cells that it does not know."""
    known = {id_ for each in baselines.files for id_ in each.cells}
    found = [
        Judgement("cells", id_, "missing", "a cell of the suite without results")
        for id_ in expected
        if id_ not in cells or not (cells[id_].records or cells[id_].status.get("measures"))
    ]
    if not uses_baseline or not known:
        return found
    gone = sorted(known - set(cells) - {each.cell for each in found})
    found += [Judgement("cells", id_, "missing", "in the baseline but not in the results") for id_ in gone]
    new = [id_ for id_ in cells if id_ not in known]
    return found + [Judgement("cells", id_, "missing", "not in the baseline") for id_ in new]
