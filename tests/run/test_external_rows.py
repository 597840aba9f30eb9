"""Rows of detectors from elsewhere, from the command that is typed to the figure that is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coco_files import write_coco
from safetensors.torch import save_file

from detrbench import cli
from detrbench.data import DataSpec, open_dataset
from detrbench.external import loading, sources
from detrbench.measure import detections
from detrbench.worker import identity

SUITE = """\
name: mixed
title: Ours and others
variants:
  - {id: ours, model: sparse_detr_tiny, options: {keep_ratio: 0.3}}
  - {id: grid, model: external, source: "factory:some_factories:grid", checkpoint: g.safetensors}
  - {id: wide, model: external, source: "factory:some_factories:grid", checkpoint: g.safetensors, options: {side: 48}}
  - {id: random, model: external, source: "factory:some_factories:grid"}
  - {id: gone, model: external, source: "factory:no_such_module:build"}
scales:
  smoke: {like: smoke}
defaults: {keep_ratio: 0.5}
measure: [complexity, accuracy, latency, memory, dam, queries, pictures]
protocols: [native, sparse_table1, dac, optimised]
budgets:
  learns: ap(grid) >= 99
"""
GRID = sources.parse("factory:some_factories:grid")
Type = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Type:
    """Types a command in a folder with the suite, images, and weights that are seeded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "external"))
    identity.sources_of.cache_clear()
    Path("mixed.yaml").write_text(SUITE)
    for split in ("train", "val"):
        write_coco(
            open_dataset(DataSpec("shapes", num_train=4, num_val=4, image_size=96), split), tmp_path / "data", split
        )
    save_file(loading.load(GRID, {}, 5).module.state_dict(), "g.safetensors")

    def once(*words: str) -> tuple[int, str, str]:
        code = cli.main(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return once


def records(cell: str, measure: str) -> Any:
    path, *_ = Path("results/mixed/smoke/cells").glob(f"{cell}-*/{measure}.json")  # of each setting that was run
    return json.loads(path.read_text())["records"]


def test_the_plan_says_what_is_measured_and_why_the_rest_is_not(typed: Type) -> None:
    code, out, _ = typed("run", "mixed.yaml", "--dry-run", "--data", "data", "--json")
    items = {(item["cell"], item["measure"]): item for item in json.loads(out)["suites"][0]["items"]}
    assert code == 0
    assert {measure for (cell, measure), item in items.items() if cell == "grid" and item["state"] == "todo"} == {
        "complexity", "accuracy", "latency", "memory",
    }  # fmt: skip
    for measure in ("dam", "queries", "pictures"):
        assert items["grid", measure]["why"] == "external: only the detectors of detrbench tell it"
    assert items["random", "accuracy"]["why"].startswith("random weights: name those")
    assert items["random", "latency"]["state"] == "todo"
    assert "no module 'no_such_module' can be imported" in items["gone", "complexity"]["why"]
    assert ("grid", "training") not in items


def test_figures_of_all_kinds(typed: Type) -> None:
    """Counted, timed with ours, scored on its own images; then read by show, compare, check and report."""
    for selected, *more in (
        ("grid or wide", "--measure", "complexity,memory"),
        ("grid or wide or ours", "--measure", "latency"),
        ("grid or wide", "--measure", "accuracy,complexity", "--data", "data"),
    ):
        code, out, err = typed("run", "mixed.yaml", "-k", selected, *more)
        assert code == 0, (out, err)
    counted = records("grid", "complexity")
    assert set(counted) == {"common", "native"}  # a rule with options of ours is none for it
    cells = 4 * 8  # of its own 32x64 pixels
    assert counted["native"]["gflops_by_part"]["heads"] * 1e9 == pytest.approx(cells * 8 * 7)
    assert "multiples of 8 pixels" in counted["common"]["convention"]
    timed = records("grid", "latency")
    assert set(timed) == {"common", "native"}
    assert (timed["native"]["height"], timed["native"]["width"]) == (32, 64)
    assert records("wide", "latency")["native"]["height"] == 48
    assert timed["common"]["session"] == records("ours", "latency")["common"]["session"]  # in the same rounds
    assert records("grid", "memory")["common"]["training_step_mib"] is None
    scored = records("grid", "accuracy")
    assert set(scored) == {"common"}
    assert scored["common"]["num_images"] == 4
    assert "the detector itself gives of images of its own size, the best 300" in scored["common"]["convention"]
    assert scored["common"]["ap"]["low"] is not None
    (kept,) = Path("results/mixed/smoke/cells").glob("grid-*/detections.json.gz")
    assert len(detections.read_results(kept)) == 4 * cells  # one in each cell of its own images
    assert typed("compare", "mixed:grid", "mixed:wide")[0] == 0
    code, out, _ = typed("check", "mixed.yaml")
    assert (code, "learns" in out) == (1, True)
    code, out, _ = typed("show", "mixed:grid")
    assert "factory:some_factories:grid" in out
    assert typed("report", "-o", "r.md", "--format", "md")[0] == 0
    page = Path("r.md").read_text(encoding="utf-8")
    assert "factory:some\\_factories:grid" in page
    assert "own image size" in page
    code, _, err = typed("predict", "mixed:grid", "data/val2017")
    assert (code, "a detector from elsewhere" in err) == (2, True)


def test_weights_of_the_file_are_those_that_are_scored(typed: Type) -> None:
    """And another file makes the AP due again, whatever it is called."""
    assert typed("run", "mixed.yaml", "-k", "grid", "--data", "data", "--measure", "accuracy")[0] == 0
    (path,) = Path("results/mixed/smoke/cells").glob("grid-*/accuracy.json")
    kept = path.with_name("detections.json.gz")
    first, scores = json.loads(path.read_text())["key"], detections.read_results(kept).scores
    save_file(loading.load(GRID, {}, 6).module.state_dict(), "g.safetensors")
    code, out, _ = typed("run", "mixed.yaml", "-k", "grid", "--data", "data", "--measure", "accuracy", "--json")
    assert (code, [item["state"] for item in json.loads(out)["outcomes"]]) == (0, ["done"])
    assert json.loads(path.read_text())["key"] != first
    assert not np.array_equal(detections.read_results(kept).scores, scores)


def test_validate_says_what_is_not_here(typed: Type) -> None:
    code, out, _ = typed("validate", "mixed.yaml")
    assert code == 0
    assert "not here: factory:no_such_module:build: no module 'no_such_module' can be imported" in out
    code, out, _ = typed("validate", "mixed.yaml", "--json")
    assert (code, len(json.loads(out)["not_here"]), json.loads(out)["not_built_yet"]) == (0, 1, [])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{id: a, model: external}", "variants[0].source: expected `model: external` together with a `source`"),
        ('{id: a, model: sparse_detr_tiny, source: "hf:rt_detr"}', "expected `model: external` together"),
        ('{id: a, model: external, source: "onyx:x"}', "variants[0].source: expected hf:ORGANISATION"),
        (
            '{id: a, model: external, source: "hf:rt_detr", official: dino/r50_4scale_12ep}',
            "variants[0].official: expected none for a detector from elsewhere",
        ),
    ],
)
def test_mistakes_in_a_row_are_found_by_validate(typed: Type, row: str, message: str) -> None:
    Path("wrong.yaml").write_text(f"name: wrong\ntitle: W\nvariants:\n  - {row}\nscales: {{smoke: {{like: smoke}}}}\n")
    code, _, err = typed("validate", "wrong.yaml")
    assert code == 2
    assert message in err


def test_a_row_that_fails_fails_alone(typed: Type) -> None:
    Path("failing.yaml").write_text(
        SUITE.replace("name: mixed", "name: failing").replace("no_such_module:build", "some_factories:broken")
    )
    code, out, err = typed("run", "failing.yaml", "-k", "gone or random", "--measure", "complexity,memory", "--json")
    states = {(each["cell"], each["measure"]): each["state"] for each in json.loads(out)["outcomes"]}
    assert code == 1
    assert states == {
        ("gone", "complexity"): "failed",
        ("gone", "memory"): "failed",
        ("random", "complexity"): "done",
        ("random", "memory"): "done",
    }
    assert "some_factories:broken: cannot be built: OSError: no weights" in err


def test_random_weights_are_those_of_the_seed() -> None:
    assert torch.equal(*(loading.load(GRID, {}, 3).module.heads[0].weight for _ in range(2)))
