"""Where budgets are written: under `budgets` of a suite, or in files of their own beside it.

# budgets/quickstart.yaml
suite: quickstart
scale: smoke              # optional: only at this scale
budgets:
  learns: ap >= 30
  as_fast_as_ever: latency <= 1.10 x baseline
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from detrbench import suite as suites
from detrbench import yaml12
from detrbench.check import expressions
from detrbench.check.expressions import Budget, ExpressionError
from detrbench.schema import Strict
from detrbench.validation import explain

FOLDER = Path("budgets")


class BudgetFile(Strict):
    """A file of budgets."""

    suite: str
    scale: str | None = None
    budgets: dict[str, str] = Field(min_length=1)


@dataclass(frozen=True)
class PlacedBudget:
    """A budget with its name and where it is written."""

    name: str
    budget: Budget
    file: str
    line: int
    column: int

    def cells(self, ids: Iterable[str]) -> list[str]:
        """The cells that it is about: those that its pattern fits, or all."""
        pattern = self.budget.term.cell
        return [id_ for id_ in ids if pattern is None or id_ == pattern or fnmatch.fnmatchcase(id_, pattern)]


@dataclass(frozen=True)
class SuiteBudgets:
    """All budgets of a suite at a scale."""

    loaded: suites.LoadedSuite
    scale: str | None
    budgets: list[PlacedBudget]


def load(target: str) -> SuiteBudgets:
    """The budgets of a suite, by name or file, with those of `budgets/<suite>.yaml`; or of a file of budgets.

    Raises:
        SuiteError: anything in a file that is wrong, with its line and column.
    """
    path = Path(target)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        document = yaml12.load(path)
        if isinstance(document.value, dict) and "variants" not in document.value:
            return _with_file(document, None)
    loaded = suites.load(target)
    beside = FOLDER / f"{loaded.suite.name}.yaml"
    if beside.is_file():
        return _with_file(yaml12.load(beside), loaded)
    return SuiteBudgets(loaded, None, place(loaded.document, loaded.suite.budgets))


def _with_file(document: yaml12.Document, loaded: suites.LoadedSuite | None) -> SuiteBudgets:
    if not isinstance(document.value, dict):
        raise document.error((), "expected a mapping with suite and budgets")
    try:
        read = BudgetFile.model_validate(document.value)
    except ValidationError as error:
        raise explain(error, document, BudgetFile) from None
    loaded = loaded or suites.load(read.suite)
    if read.suite not in (loaded.suite.name, loaded.document.path):
        raise document.error(("suite",), f"expected {loaded.suite.name!r}, got {read.suite!r}")
    own = place(loaded.document, loaded.suite.budgets)
    return SuiteBudgets(loaded, read.scale, [*own, *place(document, read.budgets)])


def place(document: yaml12.Document, written: dict[str, str]) -> list[PlacedBudget]:
    """Reads the expressions under `budgets` of a document."""
    placed = []
    for name, text in written.items():
        line, column = document.values.get(("budgets", name), (1, 1))
        try:
            budget = expressions.parse(text)
        except ExpressionError as error:
            at = yaml12.Document({}, document.path, {("budgets", name): (line, column + error.column - 1)})
            raise at.error(("budgets", name), error.message, error.hint) from None
        placed.append(PlacedBudget(name, budget, document.path, line, column))
    return placed
