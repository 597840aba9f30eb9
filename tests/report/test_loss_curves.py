"""The loss of a training is drawn from its log."""

from __future__ import annotations

import json
from pathlib import Path

from detrbench.report import figures, sections
from detrbench.results.store import ResultsStore


def write_log(folder: Path, *lines: object) -> None:
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def drawn(root: Path) -> dict[str, figures.Figure]:
    section = sections.read(ResultsStore(root), ["focus_table6_keep_ratio"])[0]
    section.spec["report"] = {**(section.spec.get("report") or {}), "plots": ["loss"]}
    return {figure.key: figure for figure in figures.drawings(section)}


def test_a_curve_for_each_row_with_a_log(results: Path) -> None:
    assert drawn(results) == {}
    first, second, third = sorted((results / "focus_table6_keep_ratio" / "smoke" / "cells").iterdir())[:3]
    write_log(first, {"step": 20, "epoch": 0.5, "total": 9.75}, {"step": 40, "epoch": 1.0, "total": 7.5})
    write_log(second, {"step": 20, "epoch": 0.5, "total": 8.5}, {"step": 21, "diverged": "loss_ce is not finite"})
    write_log(third)
    figure = drawn(results)["loss"]
    assert figure.title == "Loss in training"
    assert 'aria-label="Loss in training. focus-0.1 ends at 7.5"' in figure.svg  # of one point there is no curve
