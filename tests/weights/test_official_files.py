"""A file of each official naming: imported, planned through a suite's row, loaded, and what it computes is official.

The files hold seeded weights under official names; their outputs were recorded from the official code.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from golden_files import batch_of, golden, official_detector, relative_gap

from detrbench import cli, models, yaml12
from detrbench.results.store import ResultsStore
from detrbench.run import plan, steps
from detrbench.run.keys import Conditions
from detrbench.suite import loading as suites
from detrbench.weights import catalogue, place

FILES = {
    "sp_r50_sparse_rho0.3": "sparse_detr/r50_rho0.3",
    "def_r50_two_stage": "deformable_detr/r50_two_stage",
    "hdetr_r50_hybrid": "h_detr/r50_12ep",
    "dino_r50_5scale_official": "dino/r50_5scale_12ep",
    "lite_dino_H2L2_2p1x3_kda": "lite_detr/r50_h2l2_2x3",
    "dac_r50_deformplus_cdn_ice_ep12": "dac_detr/r50_cdn_ice_12ep",
    "ms_r50_pp_300": "ms_detr/r50_pp_300q_12ep",
    "focus_detr_r50_4scale": "focus_detr/r50_12ep",
    "salience_detr_r50": "salience_detr/r50_12ep",
    "dino_r50_4scale": "detrex/dino_r50_4scale_12ep",
    "dn_deformable_detr_r50": "detrex/dn_deformable_detr_r50_50ep",
    "hf_deformable_detr_r50_two_stage": "transformers/deformable_detr_two_stage_r50",
}
SUITE = """\
name: demo
title: A demonstration
variants:
  - {{id: row, model: {model}, official: {name}}}
scales:
  paper: {{data: coco, path: /data}}
"""


@pytest.mark.full
@pytest.mark.parametrize("recorded", sorted(FILES))
def test_imported_and_run_through_a_row(recorded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = FILES[recorded]
    official_detector(recorded, tmp_path)
    made = dataclasses.replace(catalogue.get(name), sha256=None)  # of the released file, and this one is made
    found = {**catalogue.entries(), name: made}
    monkeypatch.setattr(catalogue, "entries", lambda: found)
    monkeypatch.setattr(place, "_chosen", None)
    folder = tmp_path / "weights"
    assert cli.main(["weights", "import", str(tmp_path / "official.pth"), "--as", name, "--weights", str(folder)]) == 0
    text = SUITE.format(name=name, model=made.model)
    (cell,) = suites.read(yaml12.parse(text, "demo.yaml")).cells("paper")
    now = Conditions(lambda c, s: "", lambda c, s: 1, {}, "cpu", frozenset({str(made.model)}))
    (item,) = plan.work_items([cell], ["accuracy"], ResultsStore(tmp_path / "results"), now)
    assert str(item.official).startswith(f"{name}, sha256 ")
    classes = models.resolve(str(item.cell.model), item.cell.options).options["num_classes"]
    data: Any = SimpleNamespace(num_classes=classes)  # of as many classes as the file has logits
    torch.set_default_dtype(torch.float64)
    try:
        detector = steps.load(item, "cpu", lambda *_: data)
    finally:
        torch.set_default_dtype(torch.float32)
    for case in golden(recorded)["cases"].values():
        images, masks = batch_of(case)
        with torch.no_grad():
            out = detector(images, masks)
        for key in ("pred_logits", "pred_boxes"):
            assert relative_gap(getattr(out, key), case[key]["first8"]) < 1e-8, key
