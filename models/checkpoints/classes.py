"""Which tensors of a detector depend on the number of classes, and whether a file has another number of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from detrbench.models.detector import Detector


@dataclass(frozen=True)
class Classes:
    """A number of class logits, and the tensors of a detector that depend on it, as large as that; without values."""

    number: int
    heads: dict[str, Tensor]


def other_classes(given: Mapping[str, Tensor], detector: Detector) -> Classes | None:
    """The number of classes that a file was trained on, where it is not the detector's.

    Args:
        given: what the file holds, under our names.
        detector: whose class heads are compared.
    """
    wanted, ours = detector.state_dict(), detector.spec.options["num_classes"]
    shared = {name for name in given if name in wanted and given[name].shape != wanted[name].shape}
    if not shared:
        return None
    more = _state(detector, ours + 1)
    heads = [name for name in wanted if more[name].shape != wanted[name].shape]
    # Some have a row more than classes, so what is compared is by how much a tensor grows.
    numbers = {ours + len(given[name]) - len(wanted[name]) for name in heads if name in shared and given[name].ndim}
    if len(numbers) != 1 or min(numbers) < 1:
        return None
    (number,) = numbers
    sized = _state(detector, number)
    return Classes(number, {name: sized[name] for name in heads})


def _state(detector: Detector, num_classes: int) -> dict[str, Tensor]:
    """Names and shapes of the same detector with so many classes."""
    from detrbench.models.detector import build

    options = {**detector.spec.options, "num_classes": num_classes}
    with torch.device("meta"):
        return build(replace(detector.spec, options=options)).state_dict()
