"""Suites, settings, selections and budgets that somebody wrote: understood rightly, or refused with a line."""

from __future__ import annotations

import json
import re
import warnings
from typing import Any

import wholes
import yaml
from answers import Case, answer
from conftest import Fuzz
from hypothesis import strategies as st
from spoiling import NASTY, nasty, spoiled, yaml_text

from detrbench import yaml12
from detrbench.suite import loading
from detrbench.suite.schema import Scale

CELLS = ["sparse-0.1", "sparse-0.3", "borrower", "own", "old"]
WHOLE = {"demo.yaml": yaml.safe_dump(wholes.SUITE, sort_keys=False).encode()}


def validated_as_planned(content: bytes) -> None:
    """What `validate` says is what `run` finds: a suite that is ok has a plan, one that is not has none."""
    files = {"demo.yaml": content}
    with answer(Case(("validate", "demo.yaml"), files)) as said:
        ok = said.code == 0
    with answer(Case(("run", "demo.yaml", "--dry-run", "--json"), files)) as planned:
        assert (planned.code == 0) == ok, f"validate says {said.err!r}, run says {planned.err!r}"
        if ok:
            (suite,) = json.loads(planned.out)["suites"]
            assert suite["items"], "a plan of nothing"


def test_suites(fuzz: Fuzz) -> None:
    fuzz(yaml_text(wholes.SUITE), validated_as_planned)


@st.composite
def settings(draw: st.DrawFn) -> tuple[str, str]:
    key = draw(st.sampled_from([*Scale.model_fields, "model.keep_ratio", "model.backbone", "model.x", "", "x y", "\n"]))
    value = draw(nasty.map(lambda value: json.dumps(value)) | st.sampled_from(NASTY).map(str) | st.text(max_size=12))
    return key, value


def set_as_written(setting: tuple[str, str]) -> None:
    """A setting that is taken is in every cell as YAML reads it."""
    key, value = setting
    with answer(Case(("run", "demo.yaml", "--dry-run", "--json", "--set", f"{key}={value}"), WHOLE)) as found:
        assert found.code in (0, 2), found.err
        if found.code == 0 and not key.startswith("model.") and key not in ("init", "init_from", "path"):
            read = yaml12.parse_value(value)
            cells = loading.load("demo.yaml").cells("smoke", {key: read})
            assert [getattr(cell.settings, key) for cell in cells] == [read] * len(cells)


def test_settings(fuzz: Fuzz) -> None:
    fuzz(settings(), set_as_written)


words = st.sampled_from([*CELLS, "sparse", "0.1", "OLD", "o", "and", "or", "not", "(", ")", "()", "x", "'", "=", "\n"])


def selected_as_python_would(parts: list[str]) -> None:
    """`-k` picks what Python's own `and`, `or` and `not` pick."""
    text = " ".join(parts)
    with answer(Case(("run", "demo.yaml", "--dry-run", "--json", "-k", text), WHOLE)) as found:
        expected = _picked(text)
        if expected is None:
            assert found.code == 2, found.out
        elif not expected:
            assert found.code == 5, found.out
        else:
            (suite,) = json.loads(found.out)["suites"]
            assert {item["cell"] for item in suite["items"]} == expected


def _picked(text: str) -> set[str] | None:
    """The cells that an expression means, by Python's grammar; None where it is no expression."""
    tokens = re.findall(r"[()]|[^\s()]+", text)
    if re.search(r"\(\s*\)", text):  # a tuple to Python
        return None
    python = " ".join(t if t in ("and", "or", "not", "(", ")") else f"({t.lower()!r} in name)" for t in tokens)
    try:
        with warnings.catch_warnings(action="ignore"):
            code = compile(python, "-k", "eval")
    except SyntaxError:
        return None
    try:
        return {cell for cell in CELLS if eval(code, {}, {"name": cell})}  # noqa: S307  (of words that are quoted)
    except TypeError:  # `a (b)` is a call to Python
        return None


def test_selections(fuzz: Fuzz) -> None:
    fuzz(st.lists(words, max_size=9), selected_as_python_would)
    fuzz(st.lists(st.text(max_size=6), max_size=3), selected_as_python_would)


numbers = st.sampled_from(["0", "60", "100", "59.9", "1e2", "60.0", ".5", "1e400", "-60", "+60", "x", "١"])
figures = st.sampled_from(["gflops", "params", "ap", "latency", "memory", "corr", "nonsense", "", "x"])
cells = st.sampled_from(["", "(deformable)", "(sparse)", "(*)", "(gone)", "()", "[common]", "[x]", "(a", "(\x1b)"])
bounds = numbers | st.sampled_from(["baseline", "1.05 x baseline", "0.6 x gflops(deformable)", "gflops(sparse) + 1"])
budgets = st.tuples(figures, cells, st.sampled_from(["<=", ">=", "==", "<", "", "=<"]), bounds).map(" ".join)
GFLOPS = {"deformable": 100.0, "sparse": 60.0}
PLAIN = re.compile(r"gflops ?(?:\((\*|deformable|sparse)\))? (<=|>=|==) (\d*\.?\d*(?:e\d)?)")


def judged_as_written(text: str) -> None:
    """A budget of counts is kept or broken as its numbers say; what is no budget is refused at its column."""
    document = {"suite": "demo.yaml", "scale": "smoke", "budgets": {"one": text}}
    files = {**wholes.results(), "b.yaml": yaml.safe_dump(document, allow_unicode=True).encode()}
    with answer(Case(("check", "b.yaml", "--retries", "0", "--json"), files)) as found:
        plain = PLAIN.fullmatch(text)
        if plain:
            assert found.code == (0 if _kept(*plain.groups()) else 1), found.out


def _kept(cell: str | None, operator: str, number: str) -> bool:
    meant = GFLOPS if cell in (None, "*") else {cell: GFLOPS[str(cell)]}
    limit = float(number)
    compared = {"<=": lambda v: v <= limit, ">=": lambda v: v >= limit, "==": lambda v: v == limit}[operator]
    return all(compared(value) for value in meant.values())


def test_budgets(fuzz: Fuzz) -> None:
    fuzz(budgets | st.text(max_size=20), judged_as_written)


def refused_or_judged(content: bytes) -> None:
    with answer(Case(("check", "b.yaml", "--retries", "0"), {**wholes.results(), "b.yaml": content})):
        pass


def test_files_of_budgets(fuzz: Fuzz) -> None:
    fuzz(yaml_text(wholes.BUDGETS), refused_or_judged)


def test_a_spoiled_suite_is_another(fuzz: Fuzz) -> None:
    """The fuzzer breaks something: a document that is given back unchanged would try nothing."""
    changed: list[Any] = []
    Fuzz(30, 1)(spoiled(wholes.SUITE), lambda found: changed.append(repr(found) != repr(wholes.SUITE)))
    assert sum(changed) > 25
