"""What the figures say, in sentences of a fixed vocabulary: better, worse, same, unclear, undecided.

A difference of AP is paired over the images that both rows share, one of latency over the rounds, as `compare` does.
The noisy comparisons of one table are a family: Holm's procedure decides which of them are better or worse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from detrbench.compare.cells import ComparisonRow, compare_quantity
from detrbench.compare.differences import About
from detrbench.compare.quantities import QUANTITIES
from detrbench.compare.verdicts import FALSE_VERDICTS, Verdict, of_family, scope
from detrbench.measures import COMMON
from detrbench.models.parts import KINDS
from detrbench.published import MET
from detrbench.report import columns, labels, pairs, wording
from detrbench.report.entries import Entry, number
from detrbench.report.identity import Identity
from detrbench.report.pairs import Pair
from detrbench.report.sections import Section

COMPARED = ("ap", "gflops", "latency")
MOST = 3  # findings that stand open, facts of the whole table among them


@dataclass(frozen=True)
class Clause:
    """One statement: `text`, and the verdict on it where there is one, with what the difference is `about`.

    `detectable` is the smallest difference that the comparison could have found.
    """

    text: str
    verdict: Verdict | None = None
    about: About = ""
    detectable: float | None = None

    @property
    def scope(self) -> str:
        """What the verdict holds for, where that is not the method: "on these weights"."""
        return scope(self.verdict, self.about) if self.verdict else ""

    def __str__(self) -> str:
        return f"{self.text}: {' '.join(filter(None, (self.verdict, self.scope)))}" if self.verdict else self.text


@dataclass(frozen=True)
class Finding:
    """One sentence or two about `subject`; `notes` say where the evidence is not the best there could be."""

    subject: str
    clauses: tuple[Clause, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        notes = f" ({'; '.join(self.notes)})" if self.notes else ""
        return f"{self.subject}: {'; '.join(map(str, self.clauses))}{notes}."


@dataclass(frozen=True)
class SuiteFindings:
    """`facts` about the whole table, `comparisons` of its rows, and `basis`: how these were made.

    The first `open` comparisons stand open; those that hold nothing but exact counts are folded away.
    """

    facts: tuple[Finding, ...]
    comparisons: tuple[Finding, ...]
    basis: str
    open: int

    def __bool__(self) -> bool:
        return bool(self.facts or self.comparisons)


def about(section: Section) -> SuiteFindings:
    """Sentences about one section, from its figures alone."""
    names = _names(section)
    compared = pairs.worth_comparing(section)
    comparisons = [made for each in _judged(compared) if (made := _comparison(each, names)) is not None]
    notes = [note for made in comparisons for note in made.notes]
    said = [note for note in dict.fromkeys(notes) if len(comparisons) > 1 and notes.count(note) == len(comparisons)]
    quieter = [replace(made, notes=tuple(note for note in made.notes if note not in said)) for made in comparisons]
    basis = _basis(section, compared, said, comparisons) if comparisons else ""
    estimated = section.is_measured("accuracy") or section.is_measured("latency")
    facts = (*_gflops_met(section), *_span(section))
    return SuiteFindings(facts, tuple(quieter), basis, open=max(MOST - len(facts), 1) if estimated else 0)


def _basis(section: Section, compared: list[Pair], notes: list[str], made: list[Finding]) -> str:
    """How the comparisons were made; `notes` hold for every one of them."""
    margins = [
        ("accuracy", f"{QUANTITIES['ap'].margin:g} AP"),
        ("latency", f"{100 * QUANTITIES['latency'].margin:g} % of latency"),
    ]
    measured = [text for measure, text in margins if section.is_measured(measure)]
    words = ["The first of two rows against the second."]
    if section.is_measured("accuracy"):
        paired = (
            "" if any(note.startswith("unpaired") for note in notes) else ", both on the same images drawn together"
        )
        words.append(f"AP at {section.condition}, under {_rules(compared)}{paired}.")
        words += _of_seeds(made)
    if measured:
        words.append(f"Same: the 95 % interval of the difference lies within {' or '.join(measured)}.")
        words.append("Better or worse: it lies on one side of no difference. Unclear: neither.")
        words += _of_family(made)
    words += [f"{note[:1].upper()}{note[1:]}." for note in notes]
    return " ".join(words)


def _of_seeds(made: list[Finding]) -> list[str]:
    """What the verdicts on AP hold for, as far as there are such ones."""
    judged = [clause for finding in made for clause in finding.clauses if clause.verdict]
    about = {clause.about for clause in judged}
    words = []
    if any(clause.verdict == "undecided" for clause in judged):
        words.append(
            "Undecided: a row was trained with one seed, which the interval leaves out; another seed may turn the "
            "difference round."
        )
    if "weights" in about:
        words.append("On these weights: of the given weights, on other images; not of the methods behind them.")
    if "method" in about:
        verdicts = "Other verdicts" if words else "Verdicts"
        words.append(f"{verdicts} on AP are on methods; their intervals hold for other seeds and other images.")
    return words


def _of_family(made: list[Finding]) -> list[str]:
    """That verdicts are given together, where several are."""
    size = sum(clause.detectable is not None for finding in made for clause in finding.clauses)
    words = ["Detectable: the smallest difference that such a comparison finds four times out of five."]
    if size > 1:
        words.append(
            f"{size} comparisons are judged together (Holm): where nothing differs, any is called better or worse with "
            f"a probability of {100 * FALSE_VERDICTS:g} % at most. One may be unclear whose interval lies on one side."
        )
    return words if size else []


def _rules(compared: list[Pair]) -> str:
    """The protocols under which pairs of rows were compared in AP."""
    found = {_rule(new, old, "accuracy") for new, old in compared}
    return " or ".join(f"protocol {name}" for name in sorted(found, key=lambda name: (name == COMMON, name)))


def _gflops_met(section: Section) -> list[Finding]:
    found = [(entry, d) for entry in section.entries if (d := columns.gflops_difference(entry)) is not None]
    if not found:
        return []
    near = sum(abs(difference) <= MET for _, difference in found)
    entry, largest = max(found, key=lambda pair: abs(pair[1]))
    return [
        Finding(
            "Published GFLOPs",
            (
                Clause(f"met within {MET:g} % by {near} of {len(found)} rows, each under the protocol of its table"),
                Clause(f"the largest difference is {labels.fixed(largest, 1, sign=True)} % ({entry.id})"),
            ),
        )
    ]


def _span(section: Section) -> list[Finding]:
    """From the cheapest to the costliest row, and which part makes the difference."""
    known = [(entry, total) for entry in section.entries if (total := _gflops(entry)) is not None]
    if len({round(total, 1) for _, total in known}) < 2:
        return []
    (least, low), (most, high) = (pick(known, key=lambda pair: pair[1]) for pick in (min, max))
    text = f"from {labels.fixed(low, 1)} ({least.id}) to {labels.fixed(high, 1)} ({most.id})"
    shares = {part: (_gflops(most, part) or 0.0) - (_gflops(least, part) or 0.0) for part in KINDS}
    part, extra = max(shares.items(), key=lambda item: item[1])
    clauses = [Clause(text)]
    if 0 < extra <= high - low:
        clauses.append(Clause(f"{labels.fixed(100 * extra / (high - low), 0)} % of the difference lies in the {part}"))
    return [Finding(f"GFLOPs under {COMMON}", tuple(clauses))]


def _gflops(entry: Entry, part: str | None = None) -> float | None:
    record = entry.record("complexity", COMMON)
    return number(record, "gflops_by_part", part) if part else number(record, "gflops")


def _names(section: Section) -> dict[str, str]:
    """What a finding calls each row: the method, with its keep ratio; with the row's id where that is not enough."""
    measured = [entry for entry in section.entries if entry.cell is not None and entry.cell.records]
    short = wording.short_names([entry.identity for entry in measured])
    said = {entry.id: _name(entry.identity, short) for entry in measured}
    return {key: text if list(said.values()).count(text) == 1 else f"{text} ({key})" for key, text in said.items()}


def _name(found: Identity, short: Mapping[tuple[str, ...], str]) -> str:
    name = short[found.series]
    return name if found.kept is None else f"{name} at {found.kept:g}"


@dataclass(frozen=True)
class _Compared:
    """Two rows, with those of the quantities that both have; of `family` comparisons in all."""

    new: Entry
    old: Entry
    rows: Mapping[str, ComparisonRow]
    family: int


def _judged(compared: list[Pair]) -> list[_Compared]:
    """The pairs with their verdicts, which are given to all of them together."""
    found = [{name: row for name in COMPARED if (row := _compared(new, old, name))} for new, old in compared]
    family = [(row.difference, row.quantity) for rows in found for row in rows.values() if row.difference]
    verdicts = iter(of_family(family))
    size = sum(difference.detectable() is not None for difference, _ in family)
    judged = [{name: replace(row, verdict=next(verdicts)) for name, row in rows.items()} for rows in found]
    return [_Compared(new, old, rows, size) for (new, old), rows in zip(compared, judged)]


def _comparison(found: _Compared, names: Mapping[str, str]) -> Finding | None:
    new, old = found.new, found.old
    ap, gflops, latency = (found.rows.get(name) for name in COMPARED)
    clauses, notes = [], []
    cost = f"{_sides(gflops)} GFLOPs" if gflops else ""
    if ap and ap.difference:
        gain = labels.fixed(ap.difference.evidence.value, 1, sign=True)
        at = f" at {cost}" if cost else ""
        detectable = ap.difference.detectable(found.family)
        clauses.append(_clause(f"{gain} AP{_interval(ap, 1)}{at}", ap, detectable))
        notes += [*_training(new, old), *ap.difference.notes]
        notes += [f"detectable {labels.fixed(detectable, 1)} AP"] if detectable is not None else []
    elif gflops and gflops.difference:
        change = labels.fixed(100 * (gflops.difference.evidence.value - 1), 1, sign=True)
        clauses.append(Clause(f"{cost}, {change} %", gflops.verdict))
    if latency and latency.difference:
        ratio = f"{labels.fixed(latency.difference.evidence.value, 2)} times{_interval(latency, 2)}"
        clauses.append(
            _clause(f"latency {_sides(latency)} ms, {ratio}", latency, latency.difference.detectable(found.family))
        )
        notes += latency.difference.notes
    return (
        Finding(f"{names[new.id]} against {names[old.id]}", tuple(clauses), tuple(dict.fromkeys(notes)))
        if clauses
        else None
    )


def _clause(text: str, row: ComparisonRow, detectable: float | None) -> Clause:
    assert row.difference is not None
    return Clause(text, row.verdict, row.difference.about, detectable)


def _compared(new: Entry, old: Entry, name: str) -> ComparisonRow | None:
    """One quantity of both rows, where both have it under one protocol."""
    if new.cell is None or old.cell is None:
        return None
    row = compare_quantity(QUANTITIES[name], old.cell, new.cell, new.id, _rule(new, old, QUANTITIES[name].measure))
    if row is None or row.a is None or row.b is None or row.a.protocol != row.b.protocol:
        return None
    return row


def _rule(new: Entry, old: Entry, measure: str) -> str:
    """The protocol of the table where both rows have it, for AP; all else is compared under `common`."""
    mine = new.either(measure)
    return mine if measure == "accuracy" and mine and mine == old.either(measure) else COMMON


def _sides(row: ComparisonRow) -> str:
    """`154.5 against 152.0`."""
    assert row.a is not None
    assert row.b is not None
    values = [each.evidence.value for each in (row.b, row.a)]
    decimals = min(row.quantity.decimals, 1) if row.quantity.exact else row.quantity.decimals
    decimals = labels.decimals_of_time(values) if row.quantity.unit == "ms" else decimals
    new, old = (labels.fixed(value, decimals) for value in values)
    return f"{new} against {old}"


def _interval(row: ComparisonRow, decimals: int) -> str:
    assert row.difference is not None
    if row.quantity.exact or math.isinf(row.difference.evidence.se):
        return ""
    low, high = row.difference.evidence.interval()
    return f" {labels.interval(low, high, decimals)}"


def _training(new: Entry, old: Entry) -> list[str]:
    """That two rows were not trained alike, where they were not."""
    mine, theirs = (len(each.record("training", each.first("training")).get("epochs") or []) for each in (new, old))
    said = [f"after {mine} against {theirs} epochs"] if mine and theirs and mine != theirs else []
    if new.began_with != old.began_with:
        said += [f"{each.id}: {each.began_with}" for each in (new, old) if each.began_with]
    return said
