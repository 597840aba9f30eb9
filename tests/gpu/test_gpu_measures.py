"""Latency and memory on a CUDA device: `make test-gpu`."""

from __future__ import annotations

import pytest
import torch

from detrbench import models
from detrbench.measure import latency, memory, protocols

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_latency_by_device_events() -> None:
    detectors = {
        name: models.create(name, num_classes=10).cuda() for name in ("deformable_detr_tiny", "sparse_detr_tiny")
    }
    records = latency.measure(detectors, protocols.get("latency").at(256, 320, rounds=10))
    for record in records.values():
        assert record.median_ms.value > 0
        assert record.device == torch.cuda.get_device_name()
        assert record.threads is None
        assert sum(record.by_part_ms.values()) > 0


def test_memory_by_the_allocator() -> None:
    record = memory.measure(
        models.create("sparse_detr_tiny", num_classes=10).cuda(), protocols.get("memory").at(256, 320)
    )
    assert record.training_step_mib is not None
    assert 0 < record.forward_mib < record.training_step_mib
    assert record.process_peak_mib >= record.forward_mib
