"""Operators whose outputs are as long as values say, on meta tensors, which have none: as long as they can be.

So a detector that passes on the boxes above a score, or those that survive NMS, is counted as if all did, up to the
number that it allows: an upper bound, and the same whatever the weights and the image. No detector of ours has these.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

OPERATORS = ("aten::nonzero", "torchvision::nms")  # as they are listed
REMARK = "; where values decide how many boxes go on, as many as the detector allows"


def longest(func: Any, args: tuple[Any, ...]) -> Any:
    """What such an operator returns at most; NotImplemented for every other one, and where there are values."""
    made = _LONGEST.get(func.name())
    return made(*args) if made is not None and isinstance(args[0], Tensor) and args[0].is_meta else NotImplemented


def _nonzero(given: Tensor) -> Tensor:
    return given.new_empty(given.numel(), given.ndim, dtype=torch.int64)


def _nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    return boxes.new_empty(len(boxes), dtype=torch.int64)


def _index(given: Tensor, indices: list[Tensor | None]) -> Any:
    """By a mask: as by the places of all that it may keep."""
    if not any(index is not None and index.dtype == torch.bool for index in indices):
        return NotImplemented
    places: list[Tensor | None] = []
    for index in indices:
        masks = index is not None and index.dtype == torch.bool
        places += _nonzero(index).unbind(1) if index is not None and masks else [index]
    return torch.ops.aten.index.Tensor(given, places)


def _is_all_true(given: Tensor) -> Tensor:
    """An assertion about values, which holds where there are any."""
    return torch.tensor(True)


_LONGEST: Mapping[str, Callable[..., Any]] = {
    "aten::nonzero": _nonzero,
    "torchvision::nms": _nms,
    "aten::index.Tensor": _index,
    "aten::_is_all_true": _is_all_true,
}


@contextlib.contextmanager
def nms_of_all_classes() -> Iterator[None]:
    """Inside the block torchvision's NMS asks for no classes one by one where there are no values to tell them."""
    boxes: Any = sys.modules.get("torchvision.ops.boxes")  # whoever calls it has imported it
    if boxes is None:
        yield
        return
    usual = boxes.batched_nms

    def at_once(boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float) -> Tensor:
        if boxes.is_meta:
            return torch.ops.torchvision.nms(boxes, scores, threshold)
        return usual(boxes, scores, classes, threshold)

    boxes.batched_nms = at_once
    try:
        yield
    finally:
        boxes.batched_nms = usual
