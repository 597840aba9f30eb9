"""Words that came from others: what may be a name, and how any text is shown. Imports no torch.

Ids, class names and file names come from suites and data sets that somebody else wrote. They reach terminals, which
obey escape sequences, and readers of lines, which take a new line for a new record.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

LONGEST_NAME = 120
_LONGEST_VALUE = 80
# Control characters, what reorders or breaks lines, and what no encoding can hold: C0, DEL, C1, line and paragraph
# separators, bidi controls, surrogates without their other half.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_STEERS_IN_JSON = re.compile(rf"(?!\n){_CONTROL.pattern}")


def printable(text: str) -> str:
    r"""The text with all that steers a terminal or breaks a line written out: `\x1b`, `\n`, `\u202e`."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def json_text(document: Any, indent: int = 1, default: Callable[[Any], Any] | None = None) -> str:
    """A document as JSON with what steers a terminal, and what no encoding can hold, as JSON's own escapes.

    Raises:
        ValueError: a number that is not finite, which JSON does not know.
    """
    text = json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False, default=default)
    return _STEERS_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def shown(value: object) -> str:
    """A value as an error names it: its `repr`, cut where it is longer than a line."""
    text = printable(repr(value))
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}... ({len(text)} characters)"


def problem_of_name(name: str) -> str | None:
    """Why that cannot be the name of a suite, a scale or a cell, which become folders; None where it can."""
    if not name.strip():
        return "expected a name, got none"
    if len(name) > LONGEST_NAME:
        return f"expected at most {LONGEST_NAME} characters, got {len(name)}"
    if _CONTROL.search(name):
        return f"expected no control characters, got '{printable(name)}'"
    if re.search(r"[/\\]", name) or name in (".", ".."):
        return f"expected no path, got {name!r}"
    return None
