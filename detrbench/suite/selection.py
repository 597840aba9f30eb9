"""`-k`: pytest's expressions over ids. `sparse and not (0.1 or 0.2)` keeps the ids with such parts in them."""

from __future__ import annotations

import re
from collections.abc import Callable

from detrbench.errors import UsageError

Matcher = Callable[[str], bool]

LONGEST = 200  # words and parentheses, each of which may nest


def compile_expression(text: str) -> Matcher:
    """A test for ids. Words are parts of an id, case ignored; `and`, `or`, `not` and parentheses combine them.

    Raises:
        UsageError: an expression that is not one, with the column.
    """
    return _SelectionParser(text).parse()


class _SelectionParser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = [(m.group(), m.start() + 1) for m in re.finditer(r"[()]|[^\s()]+", text)]
        self.at = 0

    def parse(self) -> Matcher:
        if len(self.tokens) > LONGEST:
            raise UsageError(f"-k: expected at most {LONGEST} words and parentheses, got {len(self.tokens)}")
        matcher = self._or()
        if self.at < len(self.tokens):
            raise self._error("the end, 'and' or 'or'")
        return matcher

    def _or(self) -> Matcher:
        left = self._and()
        while self._take("or"):
            left = _either(left, self._and())
        return left

    def _and(self) -> Matcher:
        left = self._not()
        while self._take("and"):
            left = _both(left, self._not())
        return left

    def _not(self) -> Matcher:
        if self._take("not"):
            inner = self._not()
            return lambda name: not inner(name)
        if self._take("("):
            inner = self._or()
            if not self._take(")"):
                raise self._error("')'")
            return inner
        return self._word()

    def _word(self) -> Matcher:
        word = self._peek()
        if word in (None, "and", "or", ")"):
            raise self._error("a part of an id, 'not' or '('")
        self.at += 1
        part = str(word).lower()
        return lambda name: part in name.lower()

    def _peek(self) -> str | None:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else None

    def _take(self, token: str) -> bool:
        if self._peek() != token:
            return False
        self.at += 1
        return True

    def _error(self, expected: str) -> UsageError:
        found, column = self.tokens[self.at] if self.at < len(self.tokens) else ("the end", len(self.text) + 1)
        return UsageError(
            f"-k {self.text!r}: column {column}: expected {expected}, got {found!r}",
            hint='example: -k "sparse and not 0.1"',
        )


def _either(left: Matcher, right: Matcher) -> Matcher:
    return lambda name: left(name) or right(name)


def _both(left: Matcher, right: Matcher) -> Matcher:
    return lambda name: left(name) and right(name)
