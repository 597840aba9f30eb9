"""A detector of ours as it was exported: its file in ONNX Runtime, which may lie beside the one that it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detrbench import models
from detrbench.data.transforms import Stretch
from detrbench.errors import EnvironmentLacking, UsageError
from detrbench.external.detector import TOP, ExternalDetector
from detrbench.external.sources import Source
from detrbench.models.detections import Detections
from detrbench.models.export import Exported, InOnnxRuntime


def build(source: Source, options: dict[str, Any]) -> ExternalDetector:
    """The file that `detrbench export` wrote. It takes no options, and images of its own size alone.

    Raises:
        UsageError: options.
        CheckpointError: no such file, or not a detector of ours.
        EnvironmentLacking: ONNX Runtime is not installed.
    """
    if options:
        raise UsageError(f"{source.text}: options: an ONNX file has none, got {', '.join(sorted(options))}")
    exported = InOnnxRuntime(Path(source.name), torch.get_num_threads())
    return ExternalDetector(
        _InRuntime(exported, source.text),
        native=Stretch(*exported.size),
        detections=_detections,
        load_weights=lambda module, path: None,  # they are in the file
    )


class _InRuntime(nn.Module):
    """The file as a module: one that is on the CPU, in float32."""

    def __init__(self, exported: InOnnxRuntime, name: str) -> None:
        super().__init__()
        self.exported, self.name = exported, name
        self.where = nn.Parameter(torch.empty(0), requires_grad=False)  # measures ask a detector where it is

    def forward(self, images: Tensor) -> Exported:
        """(B, 3, H, W) of the size that the file was written for."""
        expected = (self.exported.batch_size, 3, *self.exported.size)
        if images.device.type != "cpu":
            raise EnvironmentLacking(f"{self.name}: ONNX Runtime runs on the CPU here, not on {images.device}")
        if tuple(images.shape) != expected:
            raise UsageError(
                f"{self.name}: was exported for images {expected}, got {tuple(images.shape)}",
                hint=f"detrbench export ... --size {images.shape[-2]}x{images.shape[-1]} --batch {len(images)}",
            )
        return self.exported(images)


def _detections(out: Exported, size: tuple[int, int]) -> list[Detections]:
    return models.postprocess(out, [size] * len(out.pred_logits), top=TOP)
