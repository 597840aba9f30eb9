"""The same tables as text: Markdown, CSV, LaTeX (booktabs), JSON."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from typing import Any

from detrbench.report import counts, findings, labels, overview, recipes, tables
from detrbench.report.columns import Column, TableCell
from detrbench.report.findings import Finding
from detrbench.report.sections import Section
from detrbench.report.tables import Row, Table
from detrbench.words import json_text, printable

SCHEMA = 1


def all_tables(section: Section) -> list[Table]:
    """The suite's table and those behind it, its recipes last."""
    return [tables.main_table(section), *behind(section)]


def behind(section: Section) -> list[Table]:
    """What the suite's table has no room for, its recipes last."""
    trained = recipes.table(section)
    return [*tables.detail_tables(section), *([trained] if trained.rows else [])]


def over_all(found: list[Section]) -> list[Table]:
    """What no single suite has: every method under one protocol, and how published figures were counted."""
    if len(found) < 2:
        return []
    detectors, counted = overview.detectors(found), counts.counted_rows(found)
    made = [overview.detector_table(detectors)] if detectors.section.entries else []
    return made + ([counts.table(counted)] if counted.entries else [])


def markdown(found: list[Section]) -> str:
    """One heading a section, each table with its footnotes; findings as a list."""
    blocks = ["## All suites"] if over_all(found) else []
    blocks += [block for table in over_all(found) for block in _markdown_blocks(table)]
    return "\n\n".join([*blocks, *map(_markdown_section, found)]).strip() + "\n"


def _markdown_section(section: Section) -> str:
    blocks = [f"## {as_markdown(section.title)}", as_markdown(f"{section.suite}, {section.condition}")]
    blocks += [as_markdown(problem) for problem in section.problems]
    for table in all_tables(section):
        blocks += _markdown_blocks(table)
    said = findings.about(section)
    if said:
        blocks.append("### Findings")
        blocks.append("\n".join(f"- {as_markdown(str(finding))}" for finding in (*said.facts, *said.comparisons)))
        blocks += [as_markdown(said.basis)] if said.basis else []
    return "\n\n".join(blocks)


def _markdown_blocks(table: Table) -> list[str]:
    blocks = [f"### {as_markdown(table.caption)}"]
    if table.folded:
        blocks.append(
            as_markdown("In every row: " + ", ".join(f"{name} {value}" for name, value in table.folded) + ".")
        )
    if table.missing:
        blocks.append(as_markdown("In no row: " + "; ".join(table.missing) + "."))
    return [
        *blocks,
        _markdown_table(table),
        *(f"{letter}: {as_markdown(note)}" for note, letter in table.notes.items()),
    ]


def _markdown_table(table: Table) -> str:
    heads = [table.first, *(_heading(column) for column in table.columns)]
    rules = ["---", *("---:" if column.numeric else "---" for column in table.columns)]
    rows = [[_row_name(row), *(_cell(cell, table) for cell in row.cells)] for row in table.rows]
    lines = [[as_markdown(text) for text in heads], rules, *[[as_markdown(text) for text in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def as_markdown(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no cell borders."""
    return re.sub(r"([\\`*_<>|#~]|\](?=\())", r"\\\1", printable(" ".join(text.split())))


def as_csv(found: list[Section]) -> str:
    """One line a row of any suite; every figure a column, intervals as `<figure>_low` and `<figure>_high`.

    A mean over seeds has their number and standard deviation as `<figure>_seeds` and `<figure>_sd`.
    """
    rows = [line for section in found for line in _csv_rows(section)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _csv_rows(section: Section) -> Iterator[dict[str, Any]]:
    made = all_tables(section)
    for i, row in enumerate(made[0].rows):
        line: dict[str, Any] = {
            "suite": section.suite, "scale": section.scale, "id": row.id, "detector": row.name,
            "status": row.status or "measured",
        }  # fmt: skip
        line |= {f"same.{name}": value for name, value in made[0].folded}
        entry = section.entries[i]
        for table in made:  # those of other rows than the suite's, such as categories, have no line here
            mine = next((other for other in table.rows if other.id == entry.id), None)
            for column, cell in zip(table.columns, mine.cells if mine else (), strict=mine is not None):
                line |= _csv_cell(column, cell)
        yield {name: plain(value) for name, value in line.items()}


def _csv_cell(column: Column, cell: TableCell) -> dict[str, Any]:
    values: dict[str, Any] = {column.key: "" if cell.value is None else cell.value}
    if cell.low is not None and cell.high is not None:
        values |= {f"{column.key}_low": cell.low, f"{column.key}_high": cell.high}
    if cell.seeds:
        values |= {f"{column.key}_sd": cell.sd, f"{column.key}_seeds": cell.seeds}
    if cell.note:
        values[f"{column.key}_note"] = cell.note
    return values


def plain(value: Any) -> Any:
    """Floats with six digits; text that no spreadsheet takes for a formula."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return (
        "'" + text
        if text.startswith(("=", "+", "-", "@")) and not re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", text)
        else text
    )


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    labels.MINUS: "$-$", labels.ABSENT: "--", "\N{INFINITY}": r"$\infty$", "\N{NARROW NO-BREAK SPACE}": r"\,",
    "\N{RIGHTWARDS ARROW}": r"$\to$", '"': r"\textquotedbl{}", "|": r"\textbar{}",
    "±": r"$\pm$",
}  # fmt: skip


def latex(found: list[Section]) -> str:
    r"""Each table as a `table` environment in the booktabs style; `\usepackage{booktabs}` and T1 fonts."""
    head = "% needs \\usepackage{booktabs} and \\usepackage[T1]{fontenc}; wide tables: \\usepackage{graphicx}\n"
    suites = [[_latex_table(table, "all", "all suites") for table in over_all(found)]]
    suites += [[_latex_table(table, each.anchor, each.condition) for table in all_tables(each)] for each in found]
    # LaTeX gives up where more than some fifty tables wait for their page.
    return head + "\n\\clearpage\n".join("\n".join(made) for made in suites if made)


def _latex_table(table: Table, place: str, condition: str) -> str:
    groups, rules, at = [""], [], 2
    for name, span in table.groups:
        groups.append(rf"\multicolumn{{{span}}}{{c}}{{{as_tex(name)}}}" if name else " &" * (span - 1))
        rules += [rf"\cmidrule(lr){{{at}-{at + span - 1}}}"] if name else []
        at += span
    lines = [
        r"\begin{table}", r"  \centering", f"  \\caption{{{as_tex(_caption(table, condition))}}}",
        f"  \\label{{tab:{re.sub('[^A-Za-z0-9-]', '-', f'{place}-{table.key}')}}}", r"  \resizebox{\linewidth}{!}{%",
        "  \\begin{tabular}{l" + "".join("r" if column.numeric else "l" for column in table.columns) + "}",
        r"    \toprule", "    " + " & ".join(groups) + r" \\", "    " + " ".join(rules),
        "    " + " & ".join([table.first, *(as_tex(column.label) for column in table.columns)]) + r" \\",
        r"    \midrule", *(f"    {_latex_row(row, table)}" for row in table.rows), r"    \bottomrule",
        r"  \end{tabular}}",
        *(rf"  \par\footnotesize\textsuperscript{{{letter}}} {as_tex(note)}" for note, letter in table.notes.items()),
        r"\end{table}", "",
    ]  # fmt: skip
    return "\n".join(line for line in lines if line.strip() or not line)


def _caption(table: Table, condition: str) -> str:
    folded = ", ".join(f"{name} {value}" for name, value in table.folded)
    return f"{table.caption} ({condition})." + (f" In every row: {folded}." if folded else "")


def _latex_row(row: Row, table: Table) -> str:
    cells = []
    for cell in row.cells:
        mark = rf"\textsuperscript{{{table.notes[cell.note]}}}" if cell.note else ""
        detail = rf" {{\scriptsize {as_tex(cell.detail)}}}" if cell.detail else ""
        cells.append(as_tex(cell.text) + mark + detail)
    return " & ".join([as_tex(_row_name(row)), *cells]) + r" \\"


def as_tex(text: str) -> str:
    """Text with all that LaTeX would take for markup written out."""
    return "".join(_LATEX.get(character, character) for character in printable(text))


def as_json(found: list[Section]) -> str:
    """Every table with values, intervals and notes; keys are stable, `schema` counts their changes."""
    document = {
        "schema": SCHEMA,
        "all": [_json_table(table) for table in over_all(found)],
        "suites": [_json_section(section) for section in found],
    }
    return json_text(document) + "\n"


def _json_section(section: Section) -> dict[str, Any]:
    said = findings.about(section)
    return {
        "suite": section.suite,
        "scale": section.scale,
        "title": section.title,
        "condition": section.condition,
        "published": section.published.reference if section.published else None,
        "problems": section.problems,
        "tables": [_json_table(table) for table in all_tables(section)],
        "findings": [_json_finding(f) for f in (*said.facts, *said.comparisons)],
    }


def _json_finding(finding: Finding) -> dict[str, Any]:
    clauses = [
        {"text": c.text, "verdict": c.verdict, "scope": c.scope, "detectable": c.detectable} for c in finding.clauses
    ]
    return {"subject": finding.subject, "clauses": clauses, "notes": list(finding.notes)}


def _json_table(table: Table) -> dict[str, Any]:
    columns = [{"key": c.key, "group": c.group, "label": c.label} for c in table.columns]
    rows = [
        {
            "id": row.id,
            "detector": row.name,
            "status": row.status or "measured",
            "cells": {c.key: _json_cell(cell) for c, cell in zip(table.columns, row.cells, strict=True)},
        }
        for row in table.rows
    ]
    return {
        "key": table.key,
        "caption": table.caption,
        "folded": dict(table.folded),
        "missing": list(table.missing),
        "columns": columns,
        "rows": rows,
    }


def _json_cell(cell: TableCell) -> dict[str, Any]:
    found = {"value": cell.value, "text": cell.text, "kind": cell.kind, "low": cell.low, "high": cell.high}
    return {**found, "sd": cell.sd, "seeds": cell.seeds, "note": cell.note}


def _heading(column: Column) -> str:
    return f"{column.group}: {column.label}" if column.group else column.label


def _row_name(row: Row) -> str:
    name = f"{row.name} ({row.id})" if row.measured and row.id else row.name
    return f"{name}, {row.status}" if row.status else name


def _cell(cell: TableCell, table: Table) -> str:
    mark = f" ({table.notes[cell.note]})" if cell.note else ""
    return " ".join([cell.text + mark, cell.detail]).strip()


WRITERS: dict[str, Callable[[list[Section]], str]] = {
    "md": markdown,
    "csv": as_csv,
    "latex": latex,
    "json": as_json,
}
