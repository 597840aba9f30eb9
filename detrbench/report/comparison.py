"""A comparison as text: for a terminal, or as JSON, Markdown, CSV, LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from typing import Any

from detrbench.compare.cells import Comparison, ComparisonRow
from detrbench.compare.differences import Reading
from detrbench.compare.quantities import Quantity
from detrbench.compare.verdicts import worded
from detrbench.measures import COMMON
from detrbench.report import labels
from detrbench.report.formats import as_markdown, as_tex, plain
from detrbench.words import json_text

SCHEMA = 1
COLUMNS = ("cell", "figure", "A", "B", "difference", "95 % interval", "detectable", "verdict", "note")
NUMBERS = COLUMNS[2:7]
VERDICTS = (
    "Verdicts of B against A: same, the interval lies within the margin; better or worse, it lies on one side of no "
    "difference; unclear, neither. Each interval stands alone: of twenty cells that do not differ, about one will "
    "not be called the same. Detectable: the smallest difference that such a comparison finds four times out of five."
)
SEEDS = "±: standard deviation between seeds; intervals of differences hold for other seeds and other images."
ONE_SEED = (
    "Undecided (one seed): a side was trained once, and the interval leaves its seed out; another seed may turn the "
    "difference round. `seeds: 3` in the scale, or run --set seeds=3, trains the others."
)
GIVEN = "On these weights: of files of weights, not of the methods that they were trained with."


def figure_name(quantity: Quantity) -> str:
    """`Latency, ms`."""
    return f"{quantity.label}, {quantity.unit}" if quantity.unit else quantity.label


def margins(found: Comparison) -> str:
    """The margins of the figures that are shown."""
    figures = {row.quantity.name: row.quantity for row in found.rows}.values()
    texts = [f"{f.label} {100 * f.margin:g} %" if f.relative else f"{f.label} {f.margin:g}" for f in figures]
    return f"Margins: {', '.join(texts)}."


def cells(row: ComparisonRow) -> tuple[str, ...]:
    """One row as text, in the order of COLUMNS."""
    notes = "; ".join(row.difference.notes) if row.difference else "on one side only"
    return (
        row.cell,
        figure_name(row.quantity) + _mode(row),
        _value(row.a, row.quantity),
        _value(row.b, row.quantity),
        _change(row),
        _interval(row),
        _detectable(row),
        _verdict(row) or labels.ABSENT,
        notes,
    )


def _mode(row: ComparisonRow) -> str:
    """Which way to run was timed where it is not the usual one, as budgets write it: `[optimised]`."""
    timed = {reading.protocol for reading in (row.a, row.b) if reading and row.quantity.measure == "latency"}
    return "".join(f"[{name}]" for name in sorted(timed - {COMMON}))


def _value(reading: Reading | None, quantity: Quantity) -> str:
    if reading is None:
        return labels.ABSENT
    return labels.spread(reading.evidence.value, reading.spread, quantity.decimals)


def _shown(row: ComparisonRow, value: float) -> str:
    """A difference with its sign; a ratio as percent."""
    if row.quantity.relative:
        return labels.fixed(100 * (value - 1), 1, sign=True)
    return labels.fixed(value, row.quantity.decimals, sign=True)


def _change(row: ComparisonRow) -> str:
    if row.difference is None:
        return labels.ABSENT
    return _shown(row, row.difference.evidence.value) + (" %" if row.quantity.relative else "")


def _interval(row: ComparisonRow) -> str:
    if row.difference is None or row.difference.evidence.exact or math.isinf(row.difference.evidence.se):
        return ""
    low, high = (_shown(row, value) for value in row.difference.evidence.interval())
    return f"[{low}, {high}]"


def _detectable(row: ComparisonRow) -> str:
    found = row.difference.detectable() if row.difference else None
    return "" if found is None else _shown(row, found).lstrip("+") + (" %" if row.quantity.relative else "")


def _verdict(row: ComparisonRow) -> str | None:
    return worded(row.verdict, row.difference.about) if row.verdict and row.difference else None


def remarks(found: Comparison) -> list[str]:
    """What a reader should know beside the rows."""
    lines = []
    if found.equal:
        lines.append(f"Equal in every row, not shown: {', '.join(quantity.label for quantity in found.equal)}.")
    for name, only in (("A", found.only_a), ("B", found.only_b)):
        if only:
            lines.append(f"Only in {name}: {', '.join(only)}.")
    for name, noise in _noise(found).items():
        lines.append(f"Noise of {name}: {noise}.")
    return [*lines, margins(found), VERDICTS, *_of_seeds(found)] if found.rows else lines


def _of_seeds(found: Comparison) -> list[str]:
    """What verdicts hold for, as far as any row has such a one."""
    about = {row.difference.about for row in found.rows if row.difference}
    return [text for kind, text in (("method", SEEDS), ("training", ONE_SEED), ("weights", GIVEN)) if kind in about]


def _noise(found: Comparison) -> dict[str, str]:
    """What the timings of each side said of their machines."""
    said: dict[str, str] = {}
    for name in ("a", "b"):
        readings = [getattr(row, name) for row in found.rows if row.quantity.name == "latency"]
        notes = dict.fromkeys(note for reading in readings if reading for note in reading.notes)
        if notes:
            said[name.upper()] = "; ".join(notes)
    return said


def markdown(found: Comparison) -> str:
    """A table, then the remarks."""
    rule = ["---", "---", "---:", "---:", "---:", "---:", "---:", "---", "---"]
    lines = [
        [as_markdown(text) for text in COLUMNS],
        rule,
        *[[as_markdown(text) for text in cells(row)] for row in found.rows],
    ]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return (
        "\n\n".join(
            [f"A: {as_markdown(found.a)}  \nB: {as_markdown(found.b)}", table, *map(as_markdown, remarks(found))]
        )
        + "\n"
    )


def as_csv(found: Comparison) -> str:
    """One line a figure and pair; numbers with six digits, ratios as ratios."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(_plain_row(found.rows[0])) if found.rows else ["cell"], lineterminator="\n")
    writer.writeheader()
    for row in found.rows:
        writer.writerow({name: plain(value) for name, value in _plain_row(row).items()})
    return out.getvalue()


def _plain_row(row: ComparisonRow) -> dict[str, Any]:
    evidence = row.difference.evidence if row.difference else None
    low, high = evidence.interval() if evidence and math.isfinite(evidence.se) else (None, None)
    return {
        "cell": row.cell,
        "figure": row.quantity.name + _mode(row),
        "unit": row.quantity.unit,
        **_plain_side("a", row.a),
        **_plain_side("b", row.b),
        "kind": "ratio" if row.quantity.relative else "difference",
        "change": evidence.value if evidence else None,
        "low": low,
        "high": high,
        "detectable": row.difference.detectable() if row.difference else None,
        "margin": row.quantity.margin,
        "verdict": row.verdict,
        "about": row.difference.about if row.difference else None,
        "note": "; ".join(row.difference.notes) if row.difference else "on one side only",
    }


def _plain_side(name: str, reading: Reading | None) -> dict[str, Any]:
    """A figure with the number of its trainings, and their standard deviation."""
    if reading is None:
        return {name: None, f"{name}_seeds": None, f"{name}_sd": None}
    return {
        name: reading.evidence.value,
        f"{name}_seeds": len(reading.trainings) or None,
        f"{name}_sd": reading.spread,
    }


def as_json(found: Comparison) -> str:
    """Every row with its numbers; keys are stable, `schema` counts their changes."""
    document = {
        "schema": SCHEMA,
        "a": found.a,
        "b": found.b,
        "rows": [_plain_row(row) for row in found.rows],
        "equal": [quantity.name for quantity in found.equal],
        "only_a": found.only_a,
        "only_b": found.only_b,
        "noise": _noise(found),
    }
    return json_text(document) + "\n"


def latex(found: Comparison) -> str:
    r"""A `tabular` in the booktabs style."""
    heads = " & ".join(as_tex(text) for text in COLUMNS[:-1])
    body = [f"    {' & '.join(as_tex(text) for text in cells(row)[:-1])} \\\\" for row in found.rows]
    notes = [f"  % {line}" for line in remarks(found)]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            r"\begin{tabular}{llrrrrrl}",
            r"    \toprule",
            f"    {heads} \\\\",
            r"    \midrule",
            *body,
            r"    \bottomrule",
            r"\end{tabular}",
            *notes,
            "",
        ]
    )


WRITERS: dict[str, Callable[[Comparison], str]] = {"json": as_json, "md": markdown, "csv": as_csv, "latex": latex}
