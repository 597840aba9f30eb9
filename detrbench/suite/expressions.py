"""The language of budgets.

    ap >= 45.2                                            an absolute figure, of every cell
    latency(sparse-0.3) <= 30                             of one cell; * stands for any part of an id
    gflops == baseline                                    against the baseline
    ap >= baseline - 0.3        latency <= 1.05 x baseline
    latency(sparse-0.3) <= 0.75 x latency(deformable)     between cells of one run
    gflops[sparse_table1] <= 121                          under a named protocol; without it, `common`

Every mistake is a UsageError with its column in the expression.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from detrbench import yaml12
from detrbench.compare import quantities
from detrbench.compare.quantities import Quantity
from detrbench.errors import UsageError

Operator = Literal["<=", ">=", "=="]
EXAMPLES = "ap >= 45.2; latency <= 1.05 x baseline; latency(a) <= 0.75 x latency(b)"

_TOKENS = re.compile(
    r"\s*(?:(?P<number>\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+)|(?P<compare><=|>=|==|<|>|=|!=)|(?P<times>[×*]|x(?![A-Za-z_0-9]))"
    r"|(?P<name>[A-Za-z_][A-Za-z_0-9]*)|(?P<cell>\([^()]*\))|(?P<protocol>\[[^\[\]]*\])|(?P<sign>[-+])|(?P<wrong>\S))"
)


class ExpressionError(UsageError):
    """A budget that cannot be read; `column` counts from 1 in its text."""

    def __init__(self, column: int, problem: str, hint: str | None = None) -> None:
        super().__init__(problem, hint)
        self.column = column


@dataclass(frozen=True)
class Term:
    """A figure of cells: `cell` None means the cell that the budget is being applied to."""

    quantity: Quantity
    cell: str | None = None
    protocol: str | None = None

    def __str__(self) -> str:
        protocol = f"[{self.protocol}]" if self.protocol else ""
        return self.quantity.name + protocol + (f"({self.cell})" if self.cell else "")


@dataclass(frozen=True)
class Bound:
    """`factor x reference + offset`; without a reference `offset` alone."""

    reference: Term | Literal["baseline"] | None
    factor: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class Budget:
    """`term operator bound`, with the text it was read from."""

    term: Term
    operator: Operator
    bound: Bound
    text: str


def parse(text: str) -> Budget:
    """Reads one budget; raises ExpressionError."""
    return _BudgetParser(text).budget()


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    column: int


class _BudgetParser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = [
            _Token(str(m.lastgroup), m.group(str(m.lastgroup)), m.start(str(m.lastgroup)) + 1)
            for m in _TOKENS.finditer(text)
        ]
        self.at = 0

    def budget(self) -> Budget:
        term = self._term()
        operator = self._expect("compare", "<=, >= or ==")
        if operator.text not in ("<=", ">=", "=="):
            raise ExpressionError(operator.column, f"expected <=, >= or ==, got {operator.text!r}")
        if operator.text == "==" and not term.quantity.exact:
            raise ExpressionError(
                operator.column, f"{term.quantity.name} is measured with noise: expected <= or >=, got =="
            )
        bound = self._bound(term)
        if self.at < len(self.tokens):
            raise self._wrong("the end")
        return Budget(term, operator.text, bound, self.text)  # type: ignore[arg-type]

    def _term(self) -> Term:
        name = self._expect("name", f"a figure ({', '.join(quantities.QUANTITIES)})")
        try:
            quantity = quantities.named(name.text)
        except UsageError as error:
            raise ExpressionError(name.column, error.message, error.hint) from None
        protocol, cell = self._take("protocol"), self._take("cell")
        return Term(quantity, self._inside(cell, "a cell's id"), self._protocol(quantity, protocol))

    def _protocol(self, quantity: Quantity, token: _Token | None) -> str | None:
        from detrbench.measure import protocols

        name = self._inside(token, "a protocol")
        if token is not None and name is not None:
            try:
                protocols.get(quantity.measure, name)
            except UsageError as error:
                raise ExpressionError(token.column + 1, error.message, error.hint) from None
        return name

    def _inside(self, token: _Token | None, expected: str) -> str | None:
        if token is None:
            return None
        if not token.text[1:-1].strip():
            raise ExpressionError(token.column + 1, f"expected {expected}, got nothing")
        return token.text[1:-1].strip()

    def _bound(self, term: Term) -> Bound:
        sign = self._take("sign")
        number = self._take("number")
        if number is None or sign is not None:
            if sign is not None and number is None:
                raise self._wrong("a number")
            return self._offset(self._reference(term), 1.0, term) if number is None else self._alone(number, sign)
        if self._take("times") is not None:
            return self._offset(self._reference(term), float(number.text), term)
        return self._alone(number, None)

    def _alone(self, number: _Token, sign: _Token | None) -> Bound:
        return Bound(None, offset=-float(number.text) if sign and sign.text == "-" else float(number.text))

    def _reference(self, term: Term) -> Term | Literal["baseline"]:
        token = self._peek()
        if token is not None and token.kind == "name" and token.text == "baseline":
            self.at += 1
            return "baseline"
        if token is None or token.kind != "name":
            raise self._wrong("a number, `baseline` or a figure")
        other = self._term()
        if other.quantity is not term.quantity:
            problem = f"expected {term.quantity.name} on both sides, got {other.quantity.name}"
            raise ExpressionError(token.column, problem)
        if other.cell is None or "*" in other.cell:
            problem = f"expected one cell, {other.quantity.name}(ID), got {other}"
            raise ExpressionError(token.column, problem, "a figure without a cell, or with *, may only stand first")
        return other

    def _offset(self, reference: Term | Literal["baseline"], factor: float, term: Term) -> Bound:
        sign = self._take("sign")
        if sign is None:
            return Bound(reference, factor)
        number = self._expect("number", "a number")
        if term.quantity.relative and not term.quantity.exact:
            hint = f"write {term.quantity.name} <= 1.05 x ... "
            raise ExpressionError(
                sign.column, f"{term.quantity.name} is compared by ratio: expected the end", hint.strip()
            )
        return Bound(reference, factor, float(number.text) * (-1 if sign.text == "-" else 1))

    def _peek(self) -> _Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def _take(self, kind: str) -> _Token | None:
        token = self._peek()
        if token is None or token.kind != kind:
            return None
        self.at += 1
        return token

    def _expect(self, kind: str, expected: str) -> _Token:
        token = self._take(kind)
        if token is None:
            raise self._wrong(expected)
        return token

    def _wrong(self, expected: str) -> ExpressionError:
        token = self._peek()
        found = repr(token.text) if token else "the end"
        column = token.column if token else len(self.text) + 1
        return ExpressionError(column, f"expected {expected}, got {found}", f"examples: {EXAMPLES}")


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


def place(document: yaml12.Document, written: dict[str, str]) -> list[PlacedBudget]:
    """Reads the expressions under `budgets` of a document."""
    placed = []
    for name, text in written.items():
        line, column = document.values.get(("budgets", name), (1, 1))
        try:
            budget = parse(text)
        except ExpressionError as error:
            at = yaml12.Document({}, document.path, {("budgets", name): (line, column + error.column - 1)})
            raise at.error(("budgets", name), error.message, error.hint) from None
        placed.append(PlacedBudget(name, budget, document.path, line, column))
    return placed
