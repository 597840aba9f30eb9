"""`detrbench validate`: every mistake in a suite's file or in a data set."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detrbench.cli import output
from detrbench.cli.output import Json
from detrbench.errors import Findings, UsageError
from detrbench.external import sources
from detrbench.files import at_home
from detrbench.suite import loading as suites
from detrbench.suite.cells import Cell

if TYPE_CHECKING:
    from detrbench.data.validate import Inspection

EXAMPLES = output.examples(
    "detrbench validate my_suite.yaml",
    "detrbench validate suites/*.yaml",
    "detrbench validate ~/coco",
    "detrbench validate ~/cells_yolo   # a folder with data.yaml",
)


def command(
    targets: Annotated[
        list[str], typer.Argument(metavar="SUITE|DATA...", help="Suites (names or files), or data folders.")
    ],
    as_json: Json = False,
) -> None:
    """Check suites' files, or the images and annotations of data sets.

    Of a data set it says what was understood: its layout (COCO, Roboflow's COCO export, YOLO), classes, splits, images
    and boxes; then each mistake with its file, and whether it keeps the data from being used.
    """
    if as_json and len(targets) > 1:
        raise UsageError("--json: expected one suite or data set, for it prints one document")
    for target in targets:
        path = at_home(target)
        if path.is_dir():
            _data(path, as_json)
        else:
            _suite(target, as_json)


def _suite(target: str, as_json: bool) -> None:
    loaded = suites.load(target)
    from detrbench import models

    cells = {scale: loaded.rows(scale) for scale in loaded.suite.scales}
    built = set(models.names())
    missing = sorted({str(c.model) for group in cells.values() for c in group if c.is_ours and c.model not in built})
    lacking = {(c.source, c.python): why for group in cells.values() for c in group if (why := _lacking(c))}
    if as_json:
        counts = {scale: len(group) for scale, group in cells.items()}
        named = {"not_built_yet": missing, "not_here": list(lacking.values())}
        output.print_json({"suite": loaded.suite.name, "cells": counts, **named})
        return
    output.say(f"{loaded.document.path}: ok: {', '.join(f'{len(group)} cells at {s}' for s, group in cells.items())}")
    if missing:
        output.say(f"not built yet: {', '.join(missing)}")
    if lacking:
        output.say(*(f"not here: {why}" for why in lacking.values()))


def _lacking(cell: Cell) -> str | None:
    """Why a detector from elsewhere cannot be built on this machine."""
    return None if cell.external is None else sources.lacking(cell.external, cell.options, cell.python)


def _data(path: Path, as_json: bool) -> None:
    from detrbench.data.layouts.split import HARMLESS
    from detrbench.data.validate import inspect

    with output.bar() as bar:
        task = bar.add_task("images decoded")
        found = inspect(path, progress=lambda done, total: bar.update(task, completed=done, total=total))
    if as_json:
        output.print_json({"data": str(path), **dataclasses.asdict(found)})
    else:
        output.say(*understood(path, found))
        for finding in found.findings:
            id_ = "" if finding.id is None else f" {finding.id}:"
            output.say(f"{finding.file}:{id_} {finding.kind}: {finding.message}")
    if found.findings:
        number, harmful = len(found.findings), sum(finding.kind not in HARMLESS for finding in found.findings)
        usable = f"{harmful} must be fixed before the data can be used" if harmful else "the data can be used"
        raise Findings(f"{path}: {number} mistake{'s' if number > 1 else ''}, {usable}")
    if not as_json:
        output.say(f"{path}: ok")


def understood(path: Path, found: Inspection) -> list[str]:
    """What a folder was taken for: its layout and classes, a line for each split, what the reader decided."""
    names = ", ".join(found.classes[:10]) + (", ..." if len(found.classes) > 10 else "")
    lines = [f"{path}: {found.layout} layout, {len(found.classes)} classes: {names}"]
    for split, holds in found.splits.items():
        lines.append(f"  {split}: {holds.images} images, {holds.boxes} boxes, {holds.without_boxes} images without one")
    return lines + [f"  {note}" for note in found.notes]
