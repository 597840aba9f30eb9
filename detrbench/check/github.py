"""What GitHub Actions shows: an annotation for each finding, and a table in the step's summary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from detrbench.check import outputs
from detrbench.check.checking import Checked
from detrbench.check.judge import Judgement
from detrbench.report.formats import as_markdown
from detrbench.words import printable

_LEVELS = {"broken": "error", "missing": "error", "unmeasured": "error", "unclear": "warning"}


def commands(checked: Iterable[Checked]) -> list[str]:
    """Workflow commands, one a line: what does not hold, at the line of its budget."""
    return [_annotation(each, one) for each in checked for one in each.judgements if one.status in _LEVELS]


def _annotation(checked: Checked, judgement: Judgement) -> str:
    placed = judgement.placed
    where = {"file": placed.file, "line": str(placed.line), "col": str(placed.column)} if placed else {}
    where["title"] = f"{checked.suite}: {outputs.WORDS[judgement.status].lower()}"
    properties = ",".join(f"{name}={_property(value)}" for name, value in where.items())
    message = f"{judgement.name} ({judgement.text}) at {judgement.cell}: {judgement.found}"
    return f"::{_LEVELS[judgement.status]} {properties}::{_data(message)}"


def _data(text: str) -> str:
    return printable(text).replace("%", "%25")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def summary(checked: Iterable[Checked]) -> str:
    """Markdown: a heading and a table for each suite, what is wrong first."""
    blocks = []
    for each in checked:
        order = ("broken", "missing", "unmeasured", "unclear", "holds")
        rows = sorted(each.judgements, key=lambda one: order.index(one.status))
        lines = ["| | budget | cell | found |", "| --- | --- | --- | --- |"]
        for one in rows:
            texts = (outputs.WORDS[one.status], f"{one.name}: {one.text}", one.cell, "; ".join([one.found, *one.notes]))
            lines.append("| " + " | ".join(as_markdown(value) for value in texts) + " |")
        head = f"### {as_markdown(each.suite)}, {as_markdown(each.scale)} scale: {outputs.summary(each)}"
        blocks.append("\n".join([head, "", *lines, "", as_markdown(each.promise) + "."]))
    return "\n\n".join(blocks) + "\n"


def tell(checked: list[Checked], environment: Mapping[str, str]) -> list[str]:
    """Appends to the step's summary where there is one; returns the annotations to print."""
    target = environment.get("GITHUB_STEP_SUMMARY")
    if target:
        with Path(target).open("a", encoding="utf-8") as file:
            file.write(summary(checked))
    return commands(checked)
