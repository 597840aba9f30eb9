"""Detectors that pass on as many boxes as values say, counted without values: as many as they allow."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import MultiScaleRoIAlign, batched_nms, nms

from detrbench import external
from detrbench.external.detector import Adapted
from detrbench.measure import complexity, protocols
from detrbench.measure.protocols.complexity import ComplexityProtocol
from detrbench.results.records import Complexity
from detrbench.worker import bounds

COMMON: ComplexityProtocol = protocols.get("complexity").at(32, 32)


def measured(make: Callable[[], nn.Module], parts: dict[str, str] | None = None) -> Complexity:
    """Its complexity on one image of 32x32."""
    return complexity.measure(lambda: Adapted(external.ExternalDetector(make(), parts or {}), "mine"), COMMON)


class Chooses(nn.Module):
    """Eight boxes, of which those go on that have a score, survive NMS, and are among the best five."""

    def __init__(self) -> None:
        super().__init__()
        self.scores, self.head = nn.Linear(3, 1), nn.Linear(4, 10)

    def forward(self, images: Tensor) -> Tensor:
        boxes = images[0, :, :8, :4].permute(1, 2, 0).mean(-1).cumsum(1)
        scores = self.scores(boxes[:, :3])[:, 0]
        boxes, scores = boxes[scores > 0], scores[scores > 0]
        boxes, scores = boxes[nms(boxes, scores, 0.5)], scores[nms(boxes, scores, 0.5)]
        kept = batched_nms(boxes, scores, torch.zeros_like(scores), 0.5)[:5]
        return self.head(boxes[kept])


def test_as_many_go_on_as_may() -> None:
    found = measured(Chooses, {"head": "heads"})
    assert found.gflops_by_part["heads"] * 1e9 == pytest.approx(5 * 4 * 10)
    assert found.convention.endswith(bounds.REMARK)
    assert found.uncounted["torchvision::nms"] == 3


def test_each_box_is_on_one_level() -> None:
    class Pools(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = MultiScaleRoIAlign(["a", "b"], 7, 2)
            self.head = nn.Linear(1, 1)

        def forward(self, images: Tensor) -> Tensor:
            levels = {"a": images[..., ::4, ::4], "b": images[..., ::8, ::8]}
            return self.pool(levels, [images[0, 0, :6, :4].abs().cumsum(1)], [tuple(images.shape[-2:])])

    found = measured(Pools, {"pool": "decoder"})
    samples = 6 * 3 * 7 * 7 * 2 * 2
    assert found.gflops_by_part["decoder"] * 1e9 == pytest.approx((4 + 1) * samples)


def test_what_reads_values_is_counted_with_values() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(32, 10)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(images) if float(images.std()) > 0.5 else images

    found = measured(Reads, {"head": "heads"})
    assert found.gflops_by_part["heads"] * 1e9 == pytest.approx(3 * 32 * 32 * 10)
    assert found.convention.endswith(complexity.WITH_VALUES)


def test_a_detector_of_ours_has_no_second_way() -> None:
    class Reads(nn.Module):
        parts: ClassVar[dict[str, nn.Module]] = {}

        def forward(self, images: Tensor, masks: Tensor | None, outputs: str) -> SimpleNamespace:
            return SimpleNamespace(value=float(images.std()))

    module = Reads()
    module.weight = nn.Parameter(torch.zeros(1))
    with pytest.raises(RuntimeError, match="meta"):
        complexity.measure(module, COMMON)


def test_nms_is_torchvisions_own_again() -> None:
    before = torch.ops.torchvision.nms
    measured(Chooses)
    assert torch.ops.torchvision.nms is before
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.0]])
    assert batched_nms(boxes, torch.tensor([0.5, 0.6]), torch.zeros(2), 0.5).tolist() == [1]
