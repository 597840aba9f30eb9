"""A check as text, JSON and JUnit XML."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any
from xml.etree import ElementTree

from detrbench.check.checking import Checked
from detrbench.check.judge import Judgement
from detrbench.words import printable

SCHEMA = 1
WORDS = {"holds": "ok", "broken": "BROKEN", "missing": "MISSING", "unmeasured": "NOT MEASURED", "unclear": "UNCLEAR"}


def exit_code(checked: Iterable[Checked]) -> int:
    """Of several suites: findings outweigh what could not be measured, which outweighs what is unclear."""
    codes = {each.exit_code for each in checked}
    return next((code for code in (1, 4, 6) if code in codes), 0)


def line(judgement: Judgement) -> str:
    """`BROKEN  learns (ap >= 30) at sparse-0.1: 12.3`."""
    text = f" ({judgement.text})" if judgement.placed else ""
    notes = f" [{'; '.join(judgement.notes)}]" if judgement.notes and judgement.status != "holds" else ""
    return printable(
        f"{WORDS[judgement.status]:<12}  {judgement.name}{text} at {judgement.cell}: {judgement.found}{notes}"
    )


def text(checked: Checked) -> str:
    """One line a judgement, what is wrong last, and a summary."""
    order = ("holds", "unclear", "unmeasured", "missing", "broken")
    lines = [line(each) for each in sorted(checked.judgements, key=lambda each: order.index(each.status))]
    return "\n".join([f"{checked.suite}, {checked.scale} scale", *lines, summary(checked), checked.promise])


def summary(checked: Checked) -> str:
    """`3 ok, 1 broken`."""
    counts = [(checked.count(status), word.lower()) for status, word in WORDS.items()]
    return ", ".join(f"{count} {word}" for count, word in counts if count)


def as_json(checked: list[Checked]) -> dict[str, Any]:
    """The document of `--json`; keys are stable, `schema` counts their changes."""
    return {
        "schema": SCHEMA,
        "exit_code": exit_code(checked),
        "suites": [
            {
                "suite": each.suite,
                "scale": each.scale,
                "promise": each.promise,
                "judgements": [_json_of(one) for one in each.judgements],
            }
            for each in checked
        ],
    }


def _json_of(judgement: Judgement) -> dict[str, Any]:
    evidence, placed = judgement.evidence, judgement.placed
    known = evidence is not None and math.isfinite(evidence.se)
    low, high = evidence.interval() if evidence is not None and known else (None, None)
    return {
        "name": judgement.name,
        "budget": placed.budget.text if placed else None,
        "cell": judgement.cell,
        "status": judgement.status,
        "found": judgement.found,
        "value": evidence.value if evidence else None,
        "low": low,
        "high": high,
        "limit": judgement.limit if evidence else None,
        "notes": list(judgement.notes),
        "file": placed.file if placed else None,
        "line": placed.line if placed else None,
    }


def junit(checked: list[Checked]) -> str:
    """JUnit XML with the elements and attributes that every reader knows: findings are failures, the rest errors."""
    root = ElementTree.Element("testsuites")
    for each in checked:
        counts = {
            "tests": len(each.judgements),
            "failures": each.count("broken", "missing"),
            "errors": each.count("unmeasured", "unclear"),
            "skipped": 0,
        }
        attributes = {"name": f"{each.suite}.{each.scale}", "time": "0"}
        attributes |= {name: str(count) for name, count in counts.items()}
        suite = ElementTree.SubElement(root, "testsuite", attributes)
        for judgement in each.judgements:
            _test_case(suite, f"{each.suite}.{each.scale}", judgement)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _test_case(suite: ElementTree.Element, classname: str, judgement: Judgement) -> None:
    name = f"{judgement.name} [{judgement.cell}]"
    case = ElementTree.SubElement(suite, "testcase", classname=_xml(classname), name=_xml(name), time="0")
    if judgement.status == "holds":
        return
    tag = "failure" if judgement.status in ("broken", "missing") else "error"
    wrong = ElementTree.SubElement(
        case, tag, message=_xml(f"{judgement.text}: {judgement.found}"), type=judgement.status
    )
    placed = judgement.placed
    wrong.text = _xml(line(judgement) + (f"\n{placed.file}:{placed.line}" if placed else ""))


def _xml(text: str) -> str:
    """Control characters are written out, but for ends of lines; what no XML can hold is a question mark."""
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return "\n".join(re.sub("[\ufffe\uffff]", "?", printable(line)) for line in whole.split("\n"))
