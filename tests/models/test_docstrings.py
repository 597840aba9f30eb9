"""Whoever calls a public function with tensors is told their shapes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from detrbench import models

FOLDER = Path(models.__file__).resolve().parent
# (B, S, C), (n,), (..., 4), (B * S, C), ...: dots or one letter first.
SHAPE = re.compile(r"\((?:\.\.\.|[A-Za-z0-9])(?:_\w+)?(?: [*+] \w+)*(?:,[^()]*)?\)|\bscalar\b")
# "arguments as for `X`": said once, there.
ELSEWHERE = re.compile(r"as for (?:the )?`?\w+")

NAMED = re.compile(r"(?:Mapping|dict)\[str, Tensor\]")


def undescribed(tree: ast.AST, inside: str = "") -> Iterator[str]:
    """Public functions that take or return a tensor, with no shape in their docstring."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from undescribed(node, f"{node.name}.")
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            annotations = [argument.annotation for argument in arguments] + [node.returns]
            # A state dictionary has tensors of every shape.
            written = [NAMED.sub("", ast.unparse(annotation)) for annotation in annotations if annotation]
            text = " ".join((ast.get_docstring(node) or "").split())
            told = SHAPE.search(text) or ELSEWHERE.search(text)
            if not told and any(re.search(r"\bTensor\b", name) for name in written):
                yield inside + node.name


def test_public_functions_give_the_shapes_of_tensors() -> None:
    silent = {
        f"{path.relative_to(FOLDER)}: {name}"
        for path in sorted(FOLDER.rglob("*.py"))
        for name in undescribed(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert silent == set()


def test_a_function_that_keeps_them_to_itself_is_seen() -> None:
    tree = ast.parse(
        "def f(x: Tensor) -> int:\n    'Counts (what it can).'\n"
        "def g(x: Tensor) -> int:\n    'Counts (B, n) rows.'\n"
        "class A:\n    def h(self) -> list[Tensor]:\n        'Rows.'\n"
        "def _i(x: Tensor) -> int: ...\n"
    )
    assert list(undescribed(tree)) == ["f", "A.h"]
