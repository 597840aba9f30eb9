"""A detector as an ONNX file: what ONNX Runtime makes of it is what the detector predicts."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, SMALL, small
from torch import Tensor

from detrbench import models
from detrbench.errors import CheckpointError, EnvironmentLacking
from detrbench.models import export
from detrbench.models.detector import Detector

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def one_layer() -> Detector:
    """Small even for these tests: an exporter takes seconds for each layer."""
    torch.manual_seed(0)
    options = {**SMALL, "num_encoder_layers": 1, "num_decoder_layers": 1, "num_classes": 5}
    return models.create("sparse_detr_tiny", **options)


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> tuple[Detector, Path]:
    """A detector and its file."""
    detector = one_layer()
    path = tmp_path_factory.mktemp("exported") / "sparse.onnx"
    models.export_onnx(detector, path, (64, 96), 2, {"model": "sparse_detr_tiny", "classes": ["cell", None]})
    return detector, path


def largest(detector: Detector, path: Path) -> float:
    """Over all queries, which are as many."""
    found = export.InOnnxRuntime(path, threads=1)(IMAGES)
    with torch.no_grad():
        out = detector(IMAGES)
    assert (found.pred_logits.shape, found.pred_boxes.shape) == (out.pred_logits.shape, out.pred_boxes.shape)
    return float(export.differences(detector, export.InOnnxRuntime(path, threads=1), IMAGES).max())


def test_a_file_predicts_what_the_detector_does(sparse: tuple[Detector, Path]) -> None:
    assert largest(*sparse) < 1e-5
    assert [path.name for path in sparse[1].parent.iterdir()] == ["sparse.onnx"]  # weights and graph are one file


@pytest.mark.full
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_exported(family: str, tmp_path: Path) -> None:
    detector = small(family, 5)
    models.export_onnx(detector, tmp_path / "x.onnx", (64, 96), 2)
    assert largest(detector, tmp_path / "x.onnx") < 1e-5


@pytest.mark.full
@pytest.mark.parametrize("options", [{"level_points": [2, 1, 3]}, {"sampling": "nearest"}], ids=str)
def test_levels_that_are_sampled_apart_are_exported(options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    detector = models.create("rt_detr_v2_tiny", **SMALL, num_classes=5, **options)
    models.export_onnx(detector, tmp_path / "x.onnx", (64, 96), 2)
    assert largest(detector, tmp_path / "x.onnx") < 1e-4


def test_a_file_says_what_it_is(sparse: tuple[Detector, Path]) -> None:
    found = export.InOnnxRuntime(sparse[1], threads=1)
    assert (found.batch_size, found.size) == (2, (64, 96))
    assert found.about == {"model": "sparse_detr_tiny", "classes": ["cell", None]}


def test_the_op_is_a_node_that_runtimes_know(sparse: tuple[Detector, Path]) -> None:
    onnx = importlib.import_module("onnx")
    made = onnx.load(str(sparse[1]))
    nodes = [node.op_type for node in made.graph.node]
    assert nodes.count("GridSample") == 4 * (1 + 1)  # one a level, in a layer of the encoder and one of the decoder
    assert {node.domain for node in made.graph.node} == {""}
    assert [each.version for each in made.opset_import if each.domain == ""] == [export.OPSET]


def test_nothing_of_it_waits_on_the_cores_that_others_are_timed_on(sparse: tuple[Detector, Path]) -> None:
    exported = export.InOnnxRuntime(sparse[1], 2)
    options = exported._session.get_session_options()
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


def test_another_detector_is_told_apart(sparse: tuple[Detector, Path]) -> None:
    other = one_layer()
    with torch.no_grad():
        other.heads.class_embed[-1].bias += 1.0  # type: ignore[index, union-attr]
    assert float(export.differences(other, export.InOnnxRuntime(sparse[1], threads=1), IMAGES).median()) > 1e-3


def test_queries_may_stand_in_another_order() -> None:
    detector = small("deformable_detr", 5)

    def turned(images: Tensor) -> export.Exported:
        with torch.no_grad():
            out = detector.eval()(images)
        return export.Exported(out.pred_logits.flip(1), out.pred_boxes.flip(1))

    found: Any = turned
    assert float(export.differences(detector, found, IMAGES).max()) == 0.0


def test_openvino_predicts_the_same(sparse: tuple[Detector, Path]) -> None:
    pytest.importorskip("openvino")
    assert float(export.differences(sparse[0], export.InOpenVino(sparse[1], threads=1), IMAGES).max()) < 1e-5


@pytest.mark.parametrize("runtime", export.RUNTIMES)
def test_what_is_no_exported_detector_is_refused(tmp_path: Path, runtime: str) -> None:
    pytest.importorskip(runtime)
    load = export.RUNTIMES[runtime]
    with pytest.raises(CheckpointError, match="no such file"):
        load(tmp_path / "none.onnx", 1)
    (tmp_path / "text.onnx").write_text("nothing")
    with pytest.raises(CheckpointError, match="cannot load it"):
        load(tmp_path / "text.onnx", 1)
    onnx = importlib.import_module("onnx")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    same = onnx.helper.make_node("Identity", ["x"], ["y"])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([same], "other", [value], [result])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(made, str(tmp_path / "other.onnx"))
    with pytest.raises(CheckpointError, match="not a detector that detrbench exported"):
        load(tmp_path / "other.onnx", 1)


def test_a_part_that_cannot_be_written_is_named_with_its_reason(tmp_path: Path) -> None:
    class Asks(torch.nn.Module):
        def forward(self, *inputs: Any) -> Any:
            raise RuntimeError("what a graph cannot say\nand more")

    detector = small("deformable_detr", 5)
    detector.encoder = Asks()
    with pytest.raises(EnvironmentLacking, match=r"cannot be written as ONNX: what a graph cannot say$"):
        models.export_onnx(detector, tmp_path / "x.onnx", (64, 96))
    assert list(tmp_path.iterdir()) == []


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(name: str) -> None:
        raise ImportError(name, name=name)

    detector = small("deformable_detr", 5)
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(EnvironmentLacking, match="onnxscript is not installed"):
        models.export_onnx(detector, tmp_path / "x.onnx", (64, 96))
    for runtime, load in export.RUNTIMES.items():
        with pytest.raises(EnvironmentLacking, match=f"{runtime} is not installed"):
            load(tmp_path / "x.onnx", 1)
