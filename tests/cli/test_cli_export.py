"""`detrbench export`: the file, and what it is held against."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from terminal import TINY, Terminal, tiny_weights

from detrbench import models
from detrbench.errors import EnvironmentLacking
from detrbench.models import export


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights("deformable_detr_tiny", TINY, tmp_path_factory.mktemp("weights"))


def arguments(weights: Path, *more: str) -> list[str]:
    settings = [part for pair in TINY for part in ("--set", pair)]
    return ["export", "deformable_detr_tiny", "--checkpoint", str(weights), *settings, *more]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the exporter was asked for, in place of half a minute of its work; its file answers 0.25 off."""
    asked: list[Any] = []

    def write(detector: Any, path: Path, size: Any, batch_size: int, about: Mapping[str, Any]) -> None:
        asked.append((size, batch_size, dict(about)))
        path.write_bytes(b"graph")

    monkeypatch.setattr(models, "export_onnx", write)
    monkeypatch.setattr(export, "InOnnxRuntime", lambda path, threads: "exported")
    monkeypatch.setattr(export, "differences", lambda detector, exported, images: torch.zeros(1, 8))
    return asked


@pytest.mark.full
def test_a_detector_becomes_a_file_that_predicts_the_same(terminal: Terminal, weights: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    code, out, err = terminal.type(*arguments(weights, "-o", "x.onnx", "--size", "64x96", "--json"))
    assert code == 0, err
    found = json.loads(out)
    assert (found["file"], found["images"], found["opset"]) == ("x.onnx", [1, 3, 64, 96], 20)
    assert found["median"] <= found["largest"] < 1e-5
    assert export.InOnnxRuntime(Path("x.onnx"), threads=1).about["model"] == "deformable_detr_tiny"


def test_size_and_batch_reach_the_exporter(terminal: Terminal, weights: Path, written: list[Any]) -> None:
    code, out, err = terminal.type(*arguments(weights, "-o", "x.onnx", "--size", "64x96", "--batch", "2"))
    assert code == 0, err
    assert "images (2, 3, 64, 96)" in out
    assert "predicts what the detector does" in out
    [(size, batch_size, about)] = written
    assert (size, batch_size) == ((64, 96), 2)
    assert about["model"] == "deformable_detr_tiny"
    assert about["options"]["num_queries"] == 8


def test_the_default_is_the_evaluations_size(terminal: Terminal, weights: Path, written: list[Any]) -> None:
    assert terminal.type(*arguments(weights, "-o", "x.onnx"))[0] == 0
    assert written[0][0] == (800, 1066)


def test_a_file_that_predicts_something_else_is_a_finding(
    terminal: Terminal, weights: Path, written: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "differences", lambda detector, exported, images: torch.full((1, 8), 0.25))
    code, _, err = terminal.type(*arguments(weights, "-o", "x.onnx"))
    assert code == 1
    assert "predicts something else: 0.25 apart" in err


def test_a_file_that_nobody_could_run_says_so(
    terminal: Terminal, weights: Path, written: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(path: Path, threads: int) -> None:
        raise EnvironmentLacking("onnxruntime is not installed")

    monkeypatch.setattr(export, "InOnnxRuntime", missing)
    code, out, _ = terminal.type(*arguments(weights, "-o", "x.onnx"))
    assert code == 0
    assert "not held against the detector: onnxruntime is not installed" in out


@pytest.mark.parametrize("size", ["800", "0x64", "64x-1", "100000x64", "axb"])
def test_a_size_that_is_none_is_refused(terminal: Terminal, weights: Path, size: str) -> None:
    code, _, err = terminal.type(*arguments(weights, "-o", "x.onnx", "--size", size))
    assert code == 2
    assert "expected HxW in pixels" in err
    assert not Path("x.onnx").exists()
