"""The whole command on real photographs: validate, train briefly, evaluate, predict, report. See `make test-full`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from golden_files import SHARED

DATA = SHARED / "data"
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no real images in {DATA} (set DETRBENCH_SHARED)"),
]

SUITE = """
name: real
title: Real images
variants:
  - {id: sparse, model: sparse_detr_tiny, options: {keep_ratio: 0.3}}
scales:
  smoke:
    {data: coco, path: DATA, epochs: 2, batch_size: 8, lr: 1.0e-3, lr_backbone: 1.0e-3, eval_every_epochs: 1, limit: 40,
     model: {width: 8, hidden_dim: 32, num_heads: 4, ffn_dim: 64, num_queries: 50, num_encoder_layers: 1,
             num_decoder_layers: 2}}
measure: [accuracy, dam, queries, pictures]
"""


def detrbench(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "detrbench", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=900)


@pytest.mark.parametrize(("folder", "classes"), [("bccd", 3), ("tiny_coco_free", 62)])
def test_trains_evaluates_and_predicts(folder: str, classes: int, tmp_path: Path) -> None:
    assert detrbench("validate", DATA / folder, cwd=tmp_path).returncode == 0
    (tmp_path / "real.yaml").write_text(SUITE.replace("DATA", str(DATA / folder)))
    run = detrbench("run", "real.yaml", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    (cell,) = (tmp_path / "results" / "real" / "smoke" / "cells").iterdir()
    (accuracy,) = json.loads((cell / "accuracy.json").read_text())["records"].values()
    assert accuracy["num_images"] == 40
    assert len(accuracy["per_class"]) >= min(classes, 3)
    assert 0 <= accuracy["stats"]["AP"] <= 100
    epochs = json.loads((cell / "training.json").read_text())["records"]["training"]["epochs"]
    assert epochs[-1]["loss"] < epochs[0]["loss"]
    (queries,) = json.loads((cell / "queries.json").read_text())["records"].values()
    assert queries["per_object"]["0.6"]["value"] == pytest.approx(epochs[-1]["queries_above_0.6"])
    assert len(queries["trajectories"]) == 4
    image = next((DATA / folder / "val2017").glob("*.jpg"))
    predicted = detrbench("predict", cell, image, "-o", tmp_path / "boxes.png", "--json", cwd=tmp_path)
    assert predicted.returncode == 0, predicted.stderr
    json.loads(predicted.stdout)
    assert (tmp_path / "boxes.png").stat().st_size > 1000
    assert (cell / "traces.npz").stat().st_size < 300_000
    inside = detrbench("visualize", cell, image, "-o", tmp_path / "inside", cwd=tmp_path)
    assert inside.returncode == 0, inside.stderr
    assert len(list((tmp_path / "inside").glob("*.png"))) == 5
    report = detrbench("report", cwd=tmp_path)
    assert report.returncode == 0, report.stderr
    assert (tmp_path / "report.html").read_text().count("<img ") == 5
