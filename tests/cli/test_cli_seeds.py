"""From `seeds: 2` in a suite's file to what a reader reads: the real commands on a few tiny generated images."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detrbench import cli
from detrbench.results.store import ResultsStore

SUITE = """\
name: lucky
title: Two seeds each
defaults: {width: 8, hidden_dim: 64, num_heads: 2, ffn_dim: 32, num_queries: 10, num_encoder_layers: 1,
           num_decoder_layers: 1}
variants:
  - {id: dense, model: deformable_detr_tiny}
  - {id: sparse, model: sparse_detr_tiny, options: {keep_ratio: 0.3}}
scales:
  smoke:
    {data: shapes, num_train: 6, num_val: 4, image_size: 64, min_size: 24, max_objects: 2, epochs: 1, batch_size: 2,
     seed: 7, seeds: 2, init: none}
measure: [accuracy]
budgets: {learns: ap >= 10}
"""
Type = Callable[..., str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the suite and, in `results`, its results: first of one seed, then of two."""
    folder = tmp_path_factory.mktemp("lucky")
    (folder / "lucky.yaml").write_text(SUITE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main(["run", "lucky.yaml", "--device", "cpu", "--set", "seeds=1"]) == 0
        first = {path: path.read_bytes() for path in Path("results").glob("*/*/cells/*/training.json")}
        assert len(first) == 2
        assert cli.main(["run", "lucky.yaml", "--device", "cpu"]) == 0
        assert {path: path.read_bytes() for path in first} == first, "a finished seed was trained again"
    return folder


@pytest.fixture
def typed(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Type:
    """What a command writes."""
    monkeypatch.chdir(folder)

    def type_(*arguments: str, code: int = 0) -> str:
        assert cli.main(list(arguments)) == code
        captured = capsys.readouterr()
        return " ".join((captured.out + captured.err).split())

    return type_


def trained(folder: Path) -> dict[str, list[float]]:
    """The APs of each row, by seed."""
    return {
        cell.id: [each.records["accuracy"]["common"]["ap"]["value"] for each in cell.trainings]
        for cell in ResultsStore(folder / "results").cells("lucky", "smoke")
    }


def test_each_seed_is_a_training_of_its_own(folder: Path) -> None:
    assert {cell: len(found) for cell, found in trained(folder).items()} == {"dense": 2, "sparse": 2}
    seeds = {
        each.id: (each.cell["resolved"]["seed"], each.records["training"]["training"]["recipe"]["seed"])
        for cell in ResultsStore(folder / "results").cells("lucky", "smoke")
        for each in cell.trainings
    }
    assert seeds == {"dense": (7, 7), "dense#1": (8, 8), "sparse": (7, 7), "sparse#1": (8, 8)}
    losses = {
        each.records["training"]["training"]["epochs"][-1]["loss"]
        for cell in ResultsStore(folder / "results").cells("lucky", "smoke")
        for each in cell.trainings
    }
    assert len(losses) == 4


def test_the_plan_counts_trainings(typed: Type) -> None:
    assert "8 to do, 4 of them trainings" in typed("run", "lucky.yaml", "--results", "none", "--dry-run")
    assert "12 to do, 6 of them trainings" in typed(
        "run", "lucky.yaml", "--results", "none", "--dry-run", "--set", "seeds=3"
    )
    assert "4 to do, 2 of them trainings" in typed("run", "lucky.yaml", "--dry-run", "--set", "seeds=3")
    assert "0 to do; 8 done" in typed("run", "lucky.yaml", "--dry-run")


def move_apart(folder: Path, typed: Type) -> None:
    """Figures that differ, which such detectors do not have: AP 30 and 34 of one row, 50 and 51 of the other."""
    for cell, found in {"dense": (30.0, 34.0), "sparse": (50.0, 51.0)}.items():
        for number, ap in enumerate(found):
            name = f"{cell}_{number}-????????" if number else f"{cell}-????????"
            (path,) = folder.glob(f"results/lucky/smoke/cells/{name}/accuracy.json")
            envelope = json.loads(path.read_text())
            envelope["records"]["common"]["ap"] |= {"value": ap, "low": ap - 2, "high": ap + 2}
            path.write_text(json.dumps(envelope))


def test_what_a_reader_reads(folder: Path, typed: Type) -> None:
    move_apart(folder, typed)
    report = typed("report", "--format", "md", "-o", "report.md") and (folder / "report.md").read_text()
    assert "mean ± SD of 2 seeds" in report
    (row, *_) = [line for line in report.splitlines() if line.startswith("| Deformable DETR (dense) |")]
    interval = re.search(r" 32.0 ± 2.8 \[(\S+), (\S+)\]", row)
    assert interval
    assert float(interval[1]) < 30 < 34 < float(interval[2]), "wider than what was seen"
    assert "Verdicts on AP are on methods" in report
    assert "| seed | [7, 8] | suite | all |" in report
    assert re.search(r"\+18.5 AP \[[^]]*\]: unclear \(2 against 2 seeds; detectable [\d.]+ AP\)", report)
    page = typed("report", "-o", "page.html") and (folder / "page.html").read_text()
    assert "32.0 ± 2.8" in page

    rows = list(csv.DictReader(io.StringIO(_written(typed, folder, "csv"))))
    assert {row["id"]: (row["AP.measured"], row["AP.measured_sd"][:4], row["AP.measured_seeds"]) for row in rows} == {
        "dense": ("32", "2.82", "2"),
        "sparse": ("50.5", "0.70", "2"),
    }
    document = json.loads(_written(typed, folder, "json"))
    cells = {row["id"]: row["cells"]["AP.measured"] for row in document["suites"][0]["tables"][0]["rows"]}
    assert (cells["dense"]["value"], cells["dense"]["seeds"]) == (32, 2)
    assert r"32.0 $\pm$ 2.8" in _written(typed, folder, "latex")


def _written(typed: Type, folder: Path, form: str) -> str:
    typed("report", "--format", form, "-o", f"report.{form}")
    return (folder / f"report.{form}").read_text()


def test_two_methods_and_two_seeds_are_compared(folder: Path, typed: Type) -> None:
    move_apart(folder, typed)
    methods = _rows(typed, "lucky:dense", "lucky:sparse")["ap"]
    assert (methods["a"], methods["a_seeds"], methods["b_seeds"], methods["about"]) == (32, 2, 2, "method")
    assert methods["change"] == pytest.approx(18.5)
    assert (methods["verdict"], methods["low"] < 0 < methods["high"]) == ("unclear", True)  # two seeds are few
    assert methods["detectable"] > methods["change"]
    text = typed("compare", "lucky:dense", "lucky:sparse")
    assert "hold for other seeds and other images" in text
    assert "32.0 ± 2.8" in text
    seeds = _rows(typed, "lucky:dense#0", "lucky:dense#1")["ap"]
    assert (seeds["a"], seeds["b"], seeds["about"], seeds["verdict"]) == (30, 34, "training", "undecided")
    assert "undecided" in typed("compare", "lucky:dense#0", "lucky:dense#1")


def _rows(typed: Type, *sides: str) -> dict[str, dict[str, Any]]:
    return {row["figure"]: row for row in json.loads(typed("compare", *sides, "--format", "json"))["rows"]}


def test_a_budget_is_about_the_mean(folder: Path, typed: Type) -> None:
    move_apart(folder, typed)
    assert "ok learns (ap >= 10) at dense: 32.0 points [" in typed("check", "lucky.yaml")


def test_lists_and_one_training(typed: Type) -> None:
    assert json.loads(typed("validate", "lucky.yaml", "--json"))["cells"] == {"smoke": 2}
    cells = [row["cell"] for row in json.loads(typed("list", "results", "--json"))["results"]]
    assert cells == ["dense", "dense#1", "sparse", "sparse#1"]
    assert "seed 8: dense#1" in typed("show", "lucky:dense")
    assert json.loads(typed("show", "lucky:dense#1", "--json"))["id"] == "dense#1"
    suite = json.loads(typed("show", "lucky.yaml", "--json"))
    assert [(cell["id"], cell["seeds"]) for cell in suite["cells"]] == [("dense", 2), ("sparse", 2)]
