"""What a recording counts is what counting here counts: by part, by operator, call by call."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from detrbench import models
from detrbench.external.detector import Adapted, ExternalDetector
from detrbench.measure import counters, recorded
from detrbench.measure.operations import AS_ONE
from detrbench.measure.tally import Tally
from detrbench.worker import detector as there
from detrbench.worker.building import Built

SIZE = (96, 128)


def compared(module: nn.Module, **said: Any) -> tuple[Tally, Tally]:
    """The work of a module as it is counted here, and as it is recorded, sent and counted."""
    here = Adapted(ExternalDetector(module, **said), "here").eval()
    made = Built(ExternalDetector(module, **said))
    recording = json.loads(json.dumps(there._recording(made, SIZE, list(AS_ONE))))
    images = counters.image(here, *SIZE)
    with torch.no_grad(), counters.OperationCounter(here).watching() as tally:
        here(images)
    without_root: Tally = Tally(calls=tally.calls)
    for (scope, operator, kind), units in tally.units.items():
        inner = tuple(name.removeprefix("module.") for name in scope if name != "module")
        without_root.units[inner, operator, kind] += units
    return without_root, recorded.tally(recording)


class Images(nn.Module):
    """A detector of ours, called with images alone."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.inner = models.create(name)

    def forward(self, images: Tensor) -> Any:
        return self.inner(images, None)


class MSDeformAttnFunction(torch.autograd.Function):
    """In place of the compiled one."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *others: Tensor) -> Tensor:
        locations = others[2]
        return value.new_zeros(*locations.shape[:2], value.shape[2] * value.shape[3])


class Compiled(nn.Module):
    """Calls a compiled deformable attention, and one frozen batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 64, 1), FrozenBatchNorm2d(64)

    def forward(self, images: Tensor) -> Tensor:
        value = self.norm(self.stem(images)).flatten(2).transpose(1, 2)
        locations = images.new_zeros(len(images), 7, 8, 1, 4, 2)
        shapes, starts, weights = images.new_zeros(1, 2), images.new_zeros(1), images.new_zeros(len(images), 7, 8, 1, 4)
        return MSDeformAttnFunction.apply(value.reshape(len(images), -1, 8, 8), shapes, starts, locations, weights)


@pytest.mark.parametrize("name", ["deformable_detr_tiny", "focus_detr_tiny", "lite_dino_tiny"])
def test_a_recording_counts_as_much(name: str) -> None:
    here, elsewhere = compared(Images(name).to("meta"))
    assert here.units == elsewhere.units
    assert here.calls == elsewhere.calls


def test_modules_and_functions_that_say_less_count_as_much() -> None:
    here, elsewhere = compared(Compiled().to("meta"))
    assert {"frozen_batch_norm", "MSDeformAttnFunction"} <= set(elsewhere.calls)
    assert here.units == elsewhere.units


def test_transformers_written_out_attention_counts_as_much() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"encoder_layers": 1, "decoder_layers": 2, "d_model": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    backbone = transformers.ResNetConfig(depths=[1, 1, 1, 1], out_features=["stage4"], hidden_sizes=[8, 8, 8, 8])
    config = transformers.DeformableDetrConfig(**sizes, num_queries=9, num_feature_levels=1, backbone_config=backbone)
    here, elsewhere = compared(transformers.DeformableDetrForObjectDetection(config).to("meta"))
    assert here.units == elsewhere.units
    assert any(operator == "aten::grid_sampler_2d" for _, operator, _ in here.units)
