"""A row that is an exported file: the AP and the time of what is deployed, beside the detector that it was made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import SMALL

from detrbench import cli, models
from detrbench.data import DataSpec, open_dataset
from detrbench.errors import UsageError
from detrbench.external import loading, sources
from detrbench.measure.detections import read_results

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

OPTIONS = {**SMALL, "num_encoder_layers": 1, "num_decoder_layers": 1, "num_classes": 4}
SUITE = """\
name: deployed
title: A detector and its file
variants:
  - {id: trained, model: deformable_detr_tiny, checkpoint: w.safetensors, options: %s}
  - {id: exported, model: external, source: "onnx:x.onnx"}
  - {id: gone, model: external, source: "onnx:gone.onnx"}
scales:
  smoke: {data: shapes, num_train: 4, num_val: 6, image_size: 64, shortest: 64, longest: 64, stretch: true, epochs: 1}
measure: [complexity, accuracy, latency, memory]
protocols: [native]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite, weights, and their file for images as they are evaluated."""
    made = tmp_path_factory.mktemp("deployed")
    torch.manual_seed(0)
    classes = len(open_dataset(DataSpec("shapes", num_train=1, num_val=1, image_size=64), "val").categories)
    options = {**OPTIONS, "num_classes": classes}
    (made / "deployed.yaml").write_text(SUITE % json.dumps(options))
    detector = models.create("deformable_detr_tiny", **options)
    models.save_checkpoint(detector, made / "w.safetensors")
    models.export_onnx(detector, made / "x.onnx", (64, 64))
    return made


def records(cell: str, measure: str) -> Any:
    (path,) = Path("results/deployed/smoke/cells").glob(f"{cell}-*/{measure}.json")
    return json.loads(path.read_text())["records"]


def test_the_file_has_the_ap_of_the_detector_and_its_rounds(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    selected = ("deployed.yaml", "-k", "trained or exported")
    assert cli.main(["run", *selected, "--measure", "accuracy,latency"]) == 0, capsys.readouterr().err
    ap, of_file = (records(cell, "accuracy")["common"] for cell in ("trained", "exported"))
    assert of_file["ap"]["value"] == pytest.approx(ap["ap"]["value"], abs=1e-6)
    assert of_file["num_images"] == ap["num_images"] == 6
    timed = records("exported", "latency")["common"]
    assert timed["session"] == records("trained", "latency")["common"]["session"]
    assert (timed["height"], timed["width"]) == (64, 64)
    scores = [read_results(path).scores for path in sorted(Path("results").rglob("detections.json.gz"))]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)  # as they are kept, rounded


def test_the_plan_says_what_a_file_cannot_tell(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert cli.main(["run", "deployed.yaml", "--dry-run", "--json"]) == 0
    found = {(i["cell"], i["measure"]): i for i in json.loads(capsys.readouterr().out)["suites"][0]["items"]}
    assert "where nothing counts" in found["exported", "complexity"]["why"]
    assert "whose memory nothing follows" in found["exported", "memory"]["why"]
    for cell, measure in (("trained", "memory"), ("exported", "accuracy")):
        assert found[cell, measure]["state"] != "not_measured"
    assert "onnx:gone.onnx: no such file (detrbench export MODEL -o FILE)" in found["gone", "latency"]["why"]


def test_images_of_another_size_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    detector = loading.load(sources.parse("onnx:x.onnx"), {})
    with pytest.raises(UsageError, match=r"was exported for images \(1, 3, 64, 64\), got \(1, 3, 96, 64\)"):
        detector(torch.zeros(1, 3, 96, 64))
    with pytest.raises(UsageError, match=r"\(1, 3, 64, 64\), got \(4, 3, 64, 64\)") as caught:
        detector(torch.zeros(4, 3, 64, 64))
    assert caught.value.hint == "detrbench export ... --size 64x64 --batch 4"
    assert detector.native_size == (64, 64)


def test_a_file_has_no_options(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(UsageError, match="an ONNX file has none, got keep_ratio"):
        loading.load(sources.parse("onnx:x.onnx"), {"keep_ratio": 0.3})
