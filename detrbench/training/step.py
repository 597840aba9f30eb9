"""One optimiser step: its micro-batches forward and backward, and what they give together.

The unit is the micro-batch, which stands for what one GPU of the papers' eight holds: it is padded and noised by
itself, has random numbers of its own, and weighs as much as any other. So a step is the same whoever runs its
micro-batches, and in whatever order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from detrbench.data.loading import Batch
from detrbench.errors import Diverged
from detrbench.models.criterion import count_boxes
from detrbench.models.detector import Detector

Values = list[Tensor | None]


def train_step(
    detector: Detector,
    optim: torch.optim.Optimizer,
    batches: Sequence[Batch],
    clip_norm: float,
    factor: float,
    seed: int = 0,
) -> dict[str, float]:
    """One optimiser step; returns each loss term and the weighted `total`, means over the micro-batches.

    Args:
        detector: in training mode.
        optim: from `optimiser.build`.
        batches: the micro-batches.
        clip_norm: largest gradient norm; 0 for none.
        factor: on every learning rate.
        seed: of the random numbers of the first micro-batch; each further one has the next.

    Raises:
        Diverged: a loss is not finite; no weight has changed.
    """
    for group in optim.param_groups:
        group["lr"] = group["base_lr"] * factor
    trained = {id(parameter) for group in optim.param_groups for parameter in group["params"]}
    parameters = [parameter for parameter in detector.parameters() if id(parameter) in trained]
    running, before = _running_statistics(detector), [value.clone() for value in _running_statistics(detector)]
    num_boxes = sum(count_boxes(batch.targets) for batch in batches) / len(batches)
    found, terms = PairwiseSum(), []
    for number, batch in enumerate(batches):
        torch.manual_seed((seed + number) % 2**63)
        _set(running, before)
        detector.zero_grad(set_to_none=True)
        terms.append(_backward(detector, batch, num_boxes, len(batches)))
        found.add([*(parameter.grad for parameter in parameters), *_parts(running, len(batches))])
    losses = _means(terms)
    summed = found.total()
    for parameter, gradient in zip(parameters, summed):
        parameter.grad = gradient
    _set(running, summed[len(parameters) :])
    if clip_norm:
        nn.utils.clip_grad_norm_(parameters, clip_norm)
    optim.step()
    return losses


@dataclass
class _Terms:
    """Loss terms of one micro-batch by name, and the values in a tensor, the weighted total last."""

    names: list[str]
    values: Tensor


def _backward(detector: Detector, batch: Batch, num_boxes: float, parts: int) -> _Terms:
    """Adds one micro-batch's share of the gradient to that of the parameters."""
    batch = batch.to(next(detector.parameters()).device)
    out = detector(batch.images, batch.masks, targets=batch.targets)
    losses = detector.criterion(out, batch.targets, num_boxes)
    total = detector.criterion.total(losses)
    (total / parts).backward()
    return _Terms([*losses, "total"], torch.stack([*losses.values(), total]).detach())


def _means(terms: Sequence[_Terms]) -> dict[str, float]:
    """Mean of each term over the micro-batches, of which one without it counts as 0; waits for the device once.

    Raises:
        Diverged: one is not finite.
    """
    values = iter(torch.cat([found.values for found in terms]).tolist())
    means: dict[str, float] = {}
    for found in terms:
        for name in found.names:
            means[name] = means.get(name, 0.0) + next(values)
    bad = sorted(name for name, value in means.items() if not math.isfinite(value))
    if bad:
        names = ", ".join(name for name in bad if name != "total") or "total"
        raise Diverged(f"training diverged: {names} is not finite", "lower lr, or raise warmup_steps")
    return {name: value / len(terms) for name, value in means.items()}


def _running_statistics(detector: nn.Module) -> list[Tensor]:
    """What batch normalisation keeps beside its parameters, where a backbone has it that is not frozen."""
    layers = [module for module in detector.modules() if isinstance(module, _BatchNorm) and module.training]
    return [value for layer in layers for value in (layer.running_mean, layer.running_var) if value is not None]


def _parts(values: Sequence[Tensor], count: int) -> list[Tensor]:
    return [value / count for value in values]


@torch.no_grad()
def _set(values: Sequence[Tensor], others: Sequence[Tensor | None]) -> None:
    for value, other in zip(values, others, strict=True):
        if other is not None:
            value.copy_(other)


class PairwiseSum:
    """Adds lists of tensors as a binary counter does: neighbours by twos, then those sums by twos, and so on.

    Floating point addition depends on its order. This one stays the same where a power of two of processes add up equal
    shares first.
    """

    def __init__(self) -> None:
        self.partial: list[tuple[int, Values]] = []  # (how many are in it, their sum), ever fewer

    @torch.no_grad()
    def add(self, values: Values) -> None:
        """Takes over one more list; None counts as zeros."""
        count = 1
        while self.partial and self.partial[-1][0] == count:
            values = _added(self.partial.pop()[1], values)
            count *= 2
        self.partial.append((count, values))

    @torch.no_grad()
    def total(self) -> Values:
        """The sum; None where there was nothing else."""
        total: Values = self.partial.pop()[1]
        while self.partial:
            total = _added(self.partial.pop()[1], total)
        return total


def _added(first: Values, second: Values) -> Values:
    return [a if b is None else b if a is None else a.add_(b) for a, b in zip(first, second, strict=True)]
