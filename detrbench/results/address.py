"""The address of a result, as every command takes it: `SUITE:ID`, with `@SCALE` where several scales have it.

A suite is looked up in a results folder; the path of a folder may stand in its place, and is meant where there is no
suite of that name. Of each name, a beginning that
fits one alone is enough: `quick:sparse-0.1`. Of a cell that was trained with several seeds, `SUITE:ID#1` is the second
training alone, `SUITE:ID#0` the first. The folder of a cell, and `SUITE/SCALE/ID`, are addresses as well. Imports no
torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from detrbench.errors import UsageError, unknown_name
from detrbench.results.folder import Warn
from detrbench.results.store import CellResult, ResultsStore


def of(result: CellResult) -> str:
    """The whole address of a result."""
    return f"{result.suite}:{result.id}@{result.scale}"


def is_one(text: str) -> bool:
    """Whether that is written as the address of a single result, whether or not there is such a result."""
    return (Path(text) / "cell.yaml").is_file() or ":" in text or text.count("/") == 2


def one(text: str, folder: Path, warn: Warn = None) -> CellResult:
    """The result that an address names.

    Args:
        text: the address.
        folder: the results folder in which suites are looked up.
        warn: gets one line for each file that cannot be read.

    Raises:
        UsageError: no result has that address, or several have.
    """
    return only(text, several(text, folder, warn))


def only(text: str, found: list[CellResult]) -> CellResult:
    """The one result among those that an address names; raises UsageError where there are several."""
    if len(found) > 1:
        shown = ", ".join(map(of, found[:5])) + (", ..." if len(found) > 5 else "")
        raise UsageError(f"{text!r} fits {len(found)} results", hint=f"name one: {shown}")
    return found[0]


def several(text: str, folder: Path, warn: Warn = None) -> list[CellResult]:
    """The results that an address names: at least one; all of a suite, or of a folder, where no id stands there.

    Raises:
        UsageError: no result has that address.
    """
    path = Path(text)
    if (path / "cell.yaml").is_file():
        own = ResultsStore(folder, warn).read_cell(path)
        return [own] if own else []
    if _is_folder(text, folder):
        return _below(path, warn)
    place, cell, scale = _of_slashes(text) or split(text)
    found = _below(Path(place), warn) if _is_folder(place, folder) else _of_suite(place, folder, warn)
    if cell:
        found = _chosen(f"cell of {place}", cell, scale, found)
    elif scale:
        found = _at_scale(place, scale, found)
    return found


def _is_folder(place: str, folder: Path) -> bool:
    """Whether a folder is meant, and not a suite with results whose name a folder has by chance."""
    if not place or not Path(place).is_dir():
        return False
    store = ResultsStore(folder)
    return Path(place).name != place or store.called(place) not in {suite for suite, _ in store.suites()}


def split(text: str) -> tuple[str, str, str]:
    """Suite or folder, id and scale as `SUITE:ID@SCALE` has them; empty where they are not given."""
    place, colon, cell = text.partition(":")
    before, _, scale = (cell if colon else place).partition("@")
    return (place, before, scale) if colon else (before, "", scale)


def _of_slashes(text: str) -> tuple[str, str, str] | None:
    if ":" in text or text.count("/") != 2:
        return None
    suite, scale, cell = text.split("/")
    return suite, cell, scale


def _of_suite(suite: str, folder: Path, warn: Warn) -> list[CellResult]:
    store = ResultsStore(folder, warn)
    pairs = store.suites()
    if not pairs:
        raise _nothing(f"{folder}/{suite}")
    name = complete("suite with results", store.called(suite), {pair[0] for pair in pairs})
    return _with_records([cell for pair in pairs if pair[0] == name for cell in store.cells(*pair)], folder / name)


def _below(path: Path, warn: Warn) -> list[CellResult]:
    """All results of a results folder, of a suite's folder in one, or of a scale's folder in that."""
    path = path.resolve()
    depth = 2 if (path / "cells").is_dir() else 1 if any(path.glob("*/cells")) else 0
    store = ResultsStore([path, path.parent, path.parent.parent][depth], warn)
    wanted = path.parts[len(path.parts) - depth :]
    wanted = (store.called(wanted[0]), *wanted[1:]) if wanted else ()
    pairs = [pair for pair in store.suites() if pair[:depth] == wanted]
    return _with_records([cell for pair in pairs for cell in store.cells(*pair)], path)


def _with_records(cells: list[CellResult], place: Path) -> list[CellResult]:
    found = [cell for cell in cells if cell.records]
    if not found:
        raise _nothing(place)
    return found


def _nothing(place: Path | str) -> UsageError:
    return UsageError(f"{place}: no results there", hint="detrbench run SUITE makes some")


def _chosen(kind: str, cell: str, scale: str, found: list[CellResult]) -> list[CellResult]:
    ids = {each.id for each in found}
    if f"{cell}@{scale}" in ids:  # an id may have the sign itself
        cell, scale = f"{cell}@{scale}", ""
    before, sign, number = cell.rpartition("#")
    if sign and number.isdecimal() and cell not in ids:
        return _training(cell, int(number), _chosen(kind, before, scale, found))
    name = complete(kind, cell, ids)
    return _at_scale(name, scale, [each for each in found if each.id == name])


def _training(what: str, number: int, found: list[CellResult]) -> list[CellResult]:
    """Of each result the one training of that number, counted from 0."""
    chosen = [
        one for each in found for one in each.trainings if one.id == (f"{each.id}#{number}" if number else each.id)
    ]
    if not chosen:
        known = ", ".join(f"#{i}" for i in range(max(len(each.trainings) for each in found)))
        raise UsageError(f"{what}: no training has that number", hint=f"known: {known}")
    return chosen


def _at_scale(what: str, scale: str, found: list[CellResult]) -> list[CellResult]:
    if not scale:
        return found
    name = complete(f"scale of {what}", scale, {each.scale for each in found})
    return [each for each in found if each.scale == name]


def complete(kind: str, name: str, known: Iterable[str]) -> str:
    """The known name that is meant: the same, or the only one that begins so.

    Args:
        kind: what the names are names of, for the error.
        name: what was typed.
        known: all names that there are.

    Raises:
        UsageError: none begins so, or several do.
    """
    known = sorted(known)
    begun = [each for each in known if each.startswith(name)] if name else []
    if name in known or len(begun) == 1:
        return name if name in known else begun[0]
    if begun:
        raise UsageError(f"{kind}: {name!r} fits {len(begun)}", hint=f"name one: {', '.join(begun[:5])}")
    raise unknown_name(kind, name, known)
