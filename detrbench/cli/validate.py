"""`detrbench validate`: every mistake in a suite's file or in a data set."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from detrbench.cli import output
from detrbench.cli.output import Json
from detrbench.errors import Findings, UsageError
from detrbench.files import at_home
from detrbench.suite import loading as suites

EXAMPLES = output.examples(
    "detrbench validate my_suite.yaml",
    "detrbench validate suites/*.yaml",
    "detrbench validate ~/coco",
)


def command(
    targets: Annotated[
        list[str], typer.Argument(metavar="SUITE|DATA...", help="Suites (files or names), or COCO folders.")
    ],
    as_json: Json = False,
) -> None:
    """Check suites' files, or the images and annotations of data sets."""
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

    cells = {scale: loaded.cells(scale) for scale in loaded.suite.scales}
    built = set(models.names())
    missing = sorted({c.model for group in cells.values() for c in group if c.model and c.model not in built})
    if as_json:
        counts = {scale: len(group) for scale, group in cells.items()}
        output.print_json({"suite": loaded.suite.name, "cells": counts, "not_built_yet": missing})
        return
    output.say(f"{loaded.document.path}: ok: {', '.join(f'{len(group)} cells at {s}' for s, group in cells.items())}")
    if missing:
        output.say(f"not built yet: {', '.join(missing)}")


def _data(path: Path, as_json: bool) -> None:
    from detrbench.data.validate import validate

    findings = validate(path)
    if as_json:
        output.print_json({"data": str(path), "findings": [dataclasses.asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            id_ = "" if finding.id is None else f" {finding.id}:"
            output.say(f"{finding.file}:{id_} {finding.kind}: {finding.message}")
    if findings:
        raise Findings(f"{path}: {len(findings)} mistake{'s' if len(findings) > 1 else ''}")
    if not as_json:
        output.say(f"{path}: ok")
