"""Peak memory of one forward and of one training step.

Two figures each: what PyTorch's allocator hands out above what it held before (the detector's own need), and the
process's or allocator's highest total. On a CPU the allocator is followed by the profiler, since it keeps no peak.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from detrbench.external import remote
from detrbench.external.detector import remark_of
from detrbench.measure.inference import evaluating
from detrbench.measure.machine import name as device_name
from detrbench.measure.protocols.memory import MemoryProtocol
from detrbench.results.records import Memory
from detrbench.worker.peak import peak, process_peak, reset_process_peak

MIB = 2**20


def measure(detector: nn.Module, protocol: MemoryProtocol, training: bool = True) -> Memory:
    """Peaks on the device that the detector is on. The detector is left as it was; training uses a copy.

    Args:
        detector: with a `criterion`, if a training step is wanted.
        protocol: image size and batch.
        training: also measure a training step.
    """
    parameter = next(detector.parameters())
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(protocol.batch_size, 3, protocol.height, protocol.width, generator=generator).to(parameter)
    elsewhere = remote.of(detector)
    if elsewhere is None:
        reset_process_peak(images.device)
        forward = peak(lambda: _forward(detector, images), images.device)
        step = _training_peak(detector, images, protocol, generator) if training else None
        process = process_peak(images.device)
    else:
        (forward, process), step = elsewhere.peaks(images), None
    return Memory(
        protocol=protocol.name,
        protocol_version=protocol.version,
        convention=f"{protocol.convention}{remark_of(detector)}; process: {_process_convention(images.device)}",
        device=device_name(images.device),
        batch_size=protocol.batch_size,
        height=protocol.height,
        width=protocol.width,
        forward_mib=forward / MIB,
        training_step_mib=None if step is None else step / MIB,
        process_peak_mib=process / MIB,
    )


def _forward(detector: nn.Module, images: Tensor) -> Any:
    with evaluating(detector):
        return detector(images, None)


def _training_peak(detector: nn.Module, images: Tensor, protocol: MemoryProtocol, generator: torch.Generator) -> float:
    """Bytes of two steps of a copy: the second finds gradients and AdamW's moments in place."""
    trained: Any = copy.deepcopy(detector).train()
    targets = [_target(trained, protocol.objects, images, generator) for _ in range(protocol.batch_size)]
    parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]

    def steps() -> None:
        optimizer = torch.optim.AdamW(parameters, lr=1e-6)
        for _ in range(2):
            optimizer.zero_grad()
            trained.criterion.total(trained.criterion(trained(images, None), targets)).backward()
            optimizer.step()

    return peak(steps, images.device)


def _target(detector: Any, objects: int, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Random objects: labels (n,) int64, boxes (n, 4) cx, cy, w, h."""
    boxes = 0.25 + 0.5 * torch.rand(objects, 4, generator=generator)
    return {"labels": torch.zeros(objects, dtype=torch.int64, device=images.device), "boxes": boxes.to(images)}


def _process_convention(device: torch.device) -> str:
    if device.type == "cuda":
        return "highest total that the allocator reserved on the device"
    return "highest resident size while measuring, with Python, PyTorch and all that was loaded before"
