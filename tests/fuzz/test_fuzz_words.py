"""Ids, titles, notes and reasons that somebody else wrote: in every output they are text, and change nothing beside."""

from __future__ import annotations

import csv
import functools
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import wholes
import yaml
from answers import Answer, Case, answer
from conftest import Fuzz
from hypothesis import strategies as st

from detrbench.words import problem_of_name

SHARP = [
    "a|b", "<script>x</script>", "</table>", "&amp;", "a_b^c%d$e#f{g}~h", "=1+1", "-2", '"q"', "'", "`x`", "*b*", "#1",
    "::error::x", "%0A::error::x", "a,b;c", "\u202ea", "\u2028", "\x1b[31m", "a\nb", "\\", "\\\\", "]]>", "é\u0301",
    "😀", "@x", "${x}", "{{x}}", "{%x%}", "[l](u)", "| --- |", "javascript:x", " ",
]  # fmt: skip
text = st.sampled_from(SHARP) | st.text(min_size=1, max_size=12) | st.lists(st.sampled_from(SHARP)).map("".join)
ids = text.filter(lambda id_: problem_of_name(id_) is None and not {"{", "}"} & set(id_) and id_ not in OTHER_IDS)
OTHER_IDS = ("deformable", "published")
PLAIN = ("plain", "plain", "plain", "plain")


@functools.cache
def _parsed() -> dict[str, Any]:
    read: dict[str, Callable[[bytes], Any]] = {".json": json.loads, ".yaml": yaml.safe_load}
    files = {name: (name[name.rfind(".") :], content) for name, content in wholes.results().items()}
    return {name: read[kind](content) if kind in read else content for name, (kind, content) in files.items()}


def written(words: tuple[str, str, str, str]) -> wholes.Files:
    """The results, and the suite with a budget that is broken, where a row and what is said of it have these words."""
    id_, title, note, why = words
    files: wholes.Files = {}
    for name, parsed in _parsed().items():
        document = json.loads(json.dumps(parsed)) if not isinstance(parsed, bytes) else parsed
        if name.endswith(("demo.yaml", "suite.yaml")):
            document |= {"title": title, "budgets": {note: "gflops <= 50", "of that row": "ap >= 99"}}
            document["variants"][1] |= {"id": id_, "note": note}
        elif name.endswith("cell.yaml") and document["id"] == "sparse":
            document |= {"id": id_, "note": note}
        elif name.endswith("status.json") and document["cell"] == "published":
            document["measures"]["accuracy"] = {"state": "failed", "why": why}
        if isinstance(document, bytes):
            files[name] = document
        elif name.endswith(".json"):
            files[name] = json.dumps(document).encode()
        else:
            files[name] = yaml.safe_dump(document, sort_keys=False).encode("utf-8", "backslashreplace")
    return files


class _Tags(HTMLParser):
    """Which elements a page has, with which attributes, and all of its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[tuple[str, ...]] = set()
        self.scripts, self.shown = 0, ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add((tag, *sorted(name for name, _ in attributes)))
        self.scripts += tag == "script"

    def handle_data(self, data: str) -> None:
        self.shown += data


def as_page(found: Answer) -> Any:
    page = _Tags((found.folder / "page.html").read_text(encoding="utf-8"))
    return page.scripts, {tag for tag, *_ in page.tags}, {a for _, *names in page.tags for a in names if a[:2] == "on"}


def as_rows(found: Answer) -> Any:
    return [len(row) for row in csv.reader(io.StringIO(found.out))]


def as_markdown(found: Answer) -> Any:
    return [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in found.out.split("\n") if line.startswith("|")]


def as_tex(found: Answer) -> Any:
    bare = re.sub(r"\\[\\{}%#&_$^~]", "", found.out)
    return (
        found.out.count("\n"),
        bare.count("{") - bare.count("}"),
        bare.count("&"),
        bare.count("$") % 2,
        bare.count("%"),
    )


def as_verdicts(found: Answer) -> Any:
    root = ElementTree.parse(found.folder / "check.xml").getroot()
    commands = [line.split(" ")[0] for line in found.out.split("\n") if line.startswith("::")]
    return Counter(element.tag for element in root.iter()), commands, found.code


def as_lines(found: Answer) -> Any:
    return found.code


OUTPUTS: list[tuple[tuple[str, ...], Callable[[Answer], Any]]] = [
    (("report", "-o", "page.html"), as_page),
    (("report", "--format", "csv"), as_rows),
    (("report", "--format", "md"), as_markdown),
    (("report", "--format", "latex"), as_tex),
    (("compare", "results", "results", "--format", "csv"), as_rows),
    (("compare", "results", "results", "--format", "md"), as_markdown),
    (("compare", "results", "results", "--format", "latex"), as_tex),
    (("check", "demo.yaml", "--retries", "0", "--junit", "check.xml", "--github"), as_verdicts),
    (("compare", "results", "results"), as_lines),
    (("run", "demo.yaml", "--dry-run"), as_lines),
    (("list", "results"), as_lines),
]


@functools.cache
def plainly(number: int) -> Any:
    """What an output is made of where every word is plain."""
    arguments, made_of = OUTPUTS[number]
    with answer(Case(arguments, written(PLAIN))) as found:
        return found.code, made_of(found)


def words_are_words(case: tuple[int, tuple[str, str, str, str]]) -> None:
    """An output is made of the same rows, elements and commands, whatever the words."""
    number, words = case
    arguments, made_of = OUTPUTS[number]
    with answer(Case(arguments, written(words))) as found:
        code, made = plainly(number)
        assert found.code == code, found.err
        assert made_of(found) == made, (arguments, words, found.out)


def test_words(fuzz: Fuzz) -> None:
    fuzz(st.tuples(st.integers(0, len(OUTPUTS) - 1), st.tuples(ids, text, text, text)), words_are_words)
