"""Imports point one way: no module knows of what stands on a floor above it. docs/architecture.md draws the floors."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import detrbench

HOUSE = Path(detrbench.__file__).resolve().parent
# From the ground up; what stands on one floor may know its neighbours.
FLOORS = (
    {"errors", "measures", "files", "yaml12", "environment", "words", "ranks", "renamed", "worker"},
    {"models"},
    {"weights"},
    {"results"},
    {"statistics"},
    {"data"},
    {"external"},
    {"measure", "training", "pictures", "published"},
    {"compare"},
    {"suite"},
    {"run", "published_counts", "report"},
    {"check"},
    {"cli", "__main__"},
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
# `models` is a floor of its own and asks the ground alone.
LINKS = {"models", "csrc", "suites", "reports"}


def modules() -> Iterator[Path]:
    for path in sorted(HOUSE.rglob("*.py")):
        if path.relative_to(HOUSE).parts[0] not in LINKS and path.name != "__init__.py":
            yield path
    yield from sorted((HOUSE / "models").resolve().rglob("*.py"))


def place(path: Path) -> str:
    """The package or module of the house that a file belongs to."""
    inside = path.relative_to(HOUSE) if path.is_relative_to(HOUSE) else Path("models") / path.name
    return inside.parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """The places of the house that a module imports from, wherever in it that stands, but for types alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module == "detrbench":
            names = [f"detrbench.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith("detrbench."))


def test_every_place_has_a_floor() -> None:
    assert {place(path) for path in modules()} - set(FLOOR) == set()


def test_nothing_knows_of_what_stands_above_it() -> None:
    climbing = {
        f"{place(path)}/{path.name} imports {name}"
        for path in modules()
        for name in imported(path)
        if FLOOR[name] > FLOOR[place(path)]
    }
    assert climbing == set()


def test_a_module_that_climbs_would_be_seen(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("def later():\n    from detrbench.cli import output\n\nfrom detrbench import compare\n")
    assert set(imported(module)) == {"cli", "compare"}
    assert FLOOR["measure"] < FLOOR["compare"] < FLOOR["cli"]


def test_the_worker_runs_where_nothing_of_the_house_is() -> None:
    """It imports the standard library, PyTorch and its own modules, in the words of Python 3.9."""
    allowed = {*sys.stdlib_module_names, "torch"}
    for path in sorted((HOUSE / "worker").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
        found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        found |= {str(n.module) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and not n.level}
        assert {name.partition(".")[0] for name in found} <= allowed, path.name
