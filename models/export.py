"""A detector as an ONNX file, and such a file as something that detects.

The sampled operations become `GridSample` nodes, as in every other DETR that is deployed; all else is what the detector
computes. A file is for one batch size and one size of images without padding: how many tokens a sparse encoder keeps
follows from that size, and stands in the graph as a number. Shapes: B images, Q queries, K classes.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from detrbench.errors import CheckpointError, EnvironmentLacking
from detrbench.models.ops import reference, registration

if TYPE_CHECKING:
    from detrbench.models.detector import Detector

OPSET = 20  # the first whose GridSample is named as other runtimes know it
INPUTS, OUTPUTS = ["images"], ["pred_logits", "pred_boxes"]
TOLERANCE = 1e-4  # a file whose median query differs by more, of scores and boxes in [0, 1], predicts something else


def export_onnx(
    detector: Detector, path: Path, batch_size: int, height: int, width: int, about: Mapping[str, Any] | None = None
) -> None:
    """Write a detector as ONNX; weights and graph in one file.

    Args:
        detector: with its weights, in float32 on the CPU. It stays as it is, but for being in eval mode afterwards.
        path: of the file, which a crash may leave half written: `files.replacing` gives a name for that.
        batch_size: images in a forward.
        height: of the images in pixels, ImageNet-normalised, without padding.
        width: likewise.
        about: what else the file is to say of itself, as JSON by name.

    Raises:
        EnvironmentLacking: no exporter here, or a part (a plug-in's, say) that cannot be written as a graph.
    """
    _need("onnxscript", "onnx")
    images = torch.zeros(batch_size, 3, height, width)
    run = _Predictions(detector.eval())
    with torch.no_grad(), _quiet_exporter():
        tokens = detector.neck(detector.backbone(images), None, (height, width))
        try:
            graph = torch.export.export(run, (images,), strict=False)
            graph = graph.run_decompositions(_written_out(tokens.sizes))
            program = torch.onnx.export(
                graph, dynamo=True, opset_version=OPSET, input_names=INPUTS, output_names=OUTPUTS, verbose=False
            )
        except Exception as error:  # the exporter's own kinds, and whatever a part does with a traced tensor
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise EnvironmentLacking(f"this detector cannot be written as ONNX: {reason}") from error
    assert program is not None
    for name, value in (about or {}).items():
        program.model.metadata_props[f"detrbench.{name}"] = json.dumps(value)
    program.save(str(path))


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without its remarks on its own insides."""
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class _Predictions(nn.Module):
    """What leaves the graph: the last layer's predictions."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> (B, Q, K) logits, (B, Q, 4) boxes."""
        out = self.detector(images)
        return out.pred_logits, out.pred_boxes


def _written_out(sizes: list[tuple[int, int]]) -> dict[Any, Callable[..., Any]]:
    """The sampled operations as plain PyTorch, whose sizes of levels are numbers: a graph has no other way to them.

    Operations read the whole pyramid, what is left without its finest levels, or one level, told apart by their number
    of tokens.
    """
    pyramids = {height * width: [(height, width)] for height, width in sizes}
    pyramids |= {sum(height * width for height, width in sizes[start:]): sizes[start:] for start in range(len(sizes))}

    def msda(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return reference.grid_sample_msda(value, pyramids[value.shape[1]], locations, weights)

    def from_offsets(
        value: Tensor, shapes: Tensor, starts: Tensor, offsets: Tensor, logits: Tensor, points: Tensor
    ) -> Tensor:
        locations = reference.sampling_locations(shapes, offsets, points)
        return msda(value, shapes, starts, locations, reference.sampling_weights(logits))

    def key_aware(
        value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, query: Tensor
    ) -> tuple[Tensor, Tensor]:
        return reference.key_aware(value, pyramids[value.shape[1]], locations, query)

    return {registration.MSDA: msda, registration.FROM_OFFSETS: from_offsets, registration.KEY_AWARE: key_aware}


@dataclass(frozen=True)
class Exported:
    """What a file predicts: (B, Q, K) logits and (B, Q, 4) boxes, as those of a detector's output."""

    pred_logits: Tensor
    pred_boxes: Tensor


class InOpenVino:
    """An ONNX file of `export_onnx` in OpenVINO on the CPU, in float32, called as a detector is."""

    def __init__(self, path: Path, threads: int) -> None:
        """Load and compile it.

        Raises:
            EnvironmentLacking: OpenVINO is not installed.
            CheckpointError: as for `InOnnxRuntime`.
        """
        runtime = _need("openvino", extra="openvino")
        _require_file(path)
        # Where the processor has bfloat16, OpenVINO would compute in it unasked.
        asked = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        try:
            self._model = runtime.Core().compile_model(str(path), "CPU", asked)
        except Exception as error:
            raise CheckpointError(f"{path}: OpenVINO cannot load it: {str(error).splitlines()[0]}") from error
        _require_ours(
            path, [each.any_name for each in self._model.inputs], [each.any_name for each in self._model.outputs]
        )

    def __call__(self, images: Tensor) -> Exported:
        """(B, 3, H, W) of the file's size -> what the detector predicts of them."""
        found = self._model([images.numpy()])
        return Exported(*(torch.from_numpy(found[name].copy()) for name in OUTPUTS))


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file", hint="detrbench export MODEL -o FILE writes one")


def _require_ours(path: Path, inputs: list[str], outputs: list[str]) -> None:
    if (inputs, outputs) != (INPUTS, OUTPUTS):
        raise CheckpointError(f"{path}: not a detector that detrbench exported")


class InOnnxRuntime:
    """An ONNX file of `export_onnx` in ONNX Runtime on the CPU, called as a detector is.

    Attributes:
        batch_size: of the images that it takes.
        size: their (height, width).
        about: what the file says of itself.
    """

    def __init__(self, path: Path, threads: int) -> None:
        """Load it.

        Raises:
            EnvironmentLacking: ONNX Runtime is not installed.
            CheckpointError: no such file, no ONNX, or not a detector of `export_onnx`.
        """
        runtime = _need("onnxruntime")
        _require_file(path)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors
        # Its threads would wait for more to do for tens of milliseconds, and keep the cores of what is timed next busy.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime has a kind of its own for each fault of a file
            raise CheckpointError(f"{path}: ONNX Runtime cannot load it: {str(error).splitlines()[0]}") from error
        taken, given = self._session.get_inputs(), self._session.get_outputs()
        _require_ours(path, [each.name for each in taken], [each.name for each in given])
        self.batch_size, _, height, width = taken[0].shape
        self.size = (height, width)
        found = self._session.get_modelmeta().custom_metadata_map
        prefix = "detrbench."
        self.about = {key[len(prefix) :]: json.loads(value) for key, value in found.items() if key.startswith(prefix)}

    def __call__(self, images: Tensor) -> Exported:
        """(B, 3, H, W) of the file's size -> what the detector predicts of them."""
        logits, boxes = self._session.run(OUTPUTS, {"images": images.numpy()})
        return Exported(torch.from_numpy(logits), torch.from_numpy(boxes))


RUNTIMES: dict[str, Callable[[Path, int], Callable[[Tensor], Exported]]] = {
    "onnxruntime": InOnnxRuntime,
    "openvino": InOpenVino,
}
"""Makes of a file, and a number of threads, what detects as it says."""


@torch.no_grad()
def differences(detector: Detector, exported: Callable[[Tensor], Exported], images: Tensor) -> Tensor:
    """How far a file's predictions are from the detector's.

    Queries are told apart by what they predict, not by where they stand: where two scores are equal but for rounding,
    selection may hand them over in another order, or another one of the two.

    Args:
        detector: that was exported.
        exported: its file, in a runtime.
        images: (B, 3, H, W).

    Returns:
        (B, Q) the largest difference of a query's scores and box, all in [0, 1], from those of the nearest one.
    """
    out, found = detector.eval()(images), exported(images)
    wanted = torch.cat([out.pred_logits.sigmoid(), out.pred_boxes], -1)  # (B, Q, K + 4)
    other = torch.cat([found.pred_logits.sigmoid(), found.pred_boxes], -1)
    return torch.cdist(wanted, other, p=float("inf")).amin(-1)


def _need(*names: str, extra: str = "onnx") -> ModuleType:
    """The first of these modules, which that extra installs; all have to be there."""
    try:
        found = [importlib.import_module(name) for name in names]
    except ImportError as error:
        raise EnvironmentLacking(f"{error.name} is not installed", hint=f"pip install 'detrbench[{extra}]'") from None
    return found[0]
