"""What other counters say of the same forward, fvcore and torch's `FlopCounterMode`, and what they pass over."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from detrbench.measure.counters import image
from detrbench.measure.tally import Tally
from detrbench.results.records import CrossCheck


class _Tensors(nn.Module):
    """The detector with a flat tuple of every tensor that it returns: tracing drops what leads to no output."""

    def __init__(self, detector: nn.Module, outputs: str) -> None:
        super().__init__()
        self.detector, self.outputs = detector, outputs

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(_tensors(self.detector(images, None, outputs=self.outputs)))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif hasattr(value, "__dict__"):  # dataclasses and namespaces
        yield from _tensors(list(vars(value).values()))


def by_fvcore(detector: nn.Module, height: int, width: int, outputs: str) -> CrossCheck:
    """What fvcore's default handles count, and the operators that it reports as unsupported.

    It traces the forward, which meta tensors do not survive, so the detector must be on a real device.
    """
    with warnings.catch_warnings(), torch.no_grad(), _quiet("fvcore", "torch.jit"):
        warnings.simplefilter("ignore")  # deprecations, and shapes that become constants, which is what is wanted
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(_Tensors(detector, outputs), image(detector, height, width))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        return CrossCheck(analysis.total() / 1e9, dict(sorted(analysis.unsupported_ops().items())))


def by_torch(detector: nn.Module, height: int, width: int, outputs: str, tally: Tally) -> CrossCheck:
    """What torch's `FlopCounterMode` counts, halved (it takes 2 a multiply-add), and what it has no formula for.

    The latter are the operators to which `tally`, our count of the same forward, gives work.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        detector(image(detector, height, width), None, outputs=outputs)
    known = {packet._qualified_op_name for packet in counter.flop_registry if hasattr(packet, "_qualified_op_name")}
    with_work = {operator for _, operator, _ in tally.units}
    missed = {operator: tally.calls[operator] for operator in sorted(with_work - known)}
    return CrossCheck(counter.get_total_flops() / 2e9, missed)


@contextmanager
def _quiet(*loggers: str) -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in loggers}
    try:
        for name in loggers:
            logging.getLogger(name).setLevel(logging.ERROR)
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
