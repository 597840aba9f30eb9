"""Where budgets are written: under `budgets` of a suite, or in files of their own beside it.

# budgets/quickstart.yaml
suite: quickstart
scale: smoke              # optional: only at this scale
budgets:
  learns: ap >= 20
  as_fast_as_ever: latency <= 1.10 x baseline
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field, ValidationError

from detrbench import renamed, yaml12
from detrbench.results import address
from detrbench.suite import loading as suites
from detrbench.suite.expressions import PlacedBudget, place
from detrbench.suite.schema import Strict
from detrbench.suite.validation import explain

FOLDER = Path("budgets")


class BudgetFile(Strict):
    """A file of budgets."""

    suite: str
    scale: str | None = None
    budgets: dict[str, str] = Field(min_length=1)


@dataclass(frozen=True)
class SuiteBudgets:
    """All budgets of a suite at a scale, of which only those at `cell` are judged where that is given."""

    loaded: suites.LoadedSuite
    scale: str | None
    budgets: list[PlacedBudget]
    cell: str | None = None


def load(target: str) -> SuiteBudgets:
    """The budgets of a suite, by name or file, with those of `budgets/<suite>.yaml`; or of a file of budgets.

    After a suite's name, `:ID` and `@SCALE` choose one cell and the scale.

    Raises:
        SuiteError: anything in a file that is wrong, with its line and column.
    """
    path = Path(target)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        document = yaml12.load(path)
        if isinstance(document.value, dict) and "variants" not in document.value:
            return _with_file(document, None)
        return _with_beside(suites.load(target))
    suite, cell, scale = address.split(target)
    found = _with_beside(suites.load(suite))
    return replace(found, scale=scale or found.scale, cell=cell or None)


def _with_beside(loaded: suites.LoadedSuite) -> SuiteBudgets:
    beside = renamed.place(FOLDER, loaded.suite.name, ".yaml")
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
    if renamed.current(read.suite) not in (loaded.suite.name, loaded.document.path):
        raise document.error(("suite",), f"expected {loaded.suite.name!r}, got {read.suite!r}")
    own = place(loaded.document, loaded.suite.budgets)
    return SuiteBudgets(loaded, read.scale, [*own, *place(document, read.budgets)])
