"""One optimiser step: its micro-batches forward and backward, and what they give together.

The unit is the micro-batch, which stands for what one GPU of the papers' eight holds: it is padded and noised by
itself, has random numbers of its own, and weighs as much as any other. So a step is the same whoever runs its
micro-batches, and in whatever order.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from detrbench.data.loading import Batch
from detrbench.errors import Diverged, EnvironmentLacking
from detrbench.models.criterion import count_boxes
from detrbench.models.detector import Detector
from detrbench.ranks import ALONE, Ranks
from detrbench.training.execution import FULL, Precision, can_recompute, comes_from_the_compiler
from detrbench.training.sums import PairwiseSum, over_ranks


@dataclass(frozen=True)
class Part:
    """What one process takes of a step.

    Attributes:
        batches: its micro-batches; none at the end of an epoch, where there are fewer than processes.
        first: number of the first of them within the step.
        count: micro-batches of the step.
        num_boxes: objects of a micro-batch, mean over all of the step.
        images: of the step.
    """

    batches: Sequence[Batch]
    first: int
    count: int
    num_boxes: float
    images: int

    @classmethod
    def of(cls, batches: Sequence[Batch], ranks: Ranks = ALONE) -> Part:
        """This process's part, where all processes together hold the step's micro-batches, in order."""
        held = ranks.share(lambda: [(count_boxes(batch.targets), len(batch.image_ids)) for batch in batches])
        objects, images = zip(*itertools.chain(*held))
        first, count = sum(map(len, held[: ranks.rank])), len(objects)
        return cls(batches, first, count, sum(objects) / count, sum(images))


def train_step(
    detector: Detector,
    optim: torch.optim.Optimizer,
    part: Part,
    clip_norm: float,
    factor: float,
    seed: int = 0,
    ranks: Ranks = ALONE,
    precision: Precision = FULL,
) -> tuple[dict[str, float], Tensor]:
    """One optimiser step.

    Returns:
        Each loss term and the weighted `total`, means over the micro-batches; the norm of the gradient, a scalar that
        nobody has waited for, before it is clipped; where that is not finite in fp16, no weight has changed.

    Args:
        detector: in training mode, with the same weights in every process.
        optim: from `optimiser.build`.
        part: the micro-batches of this process.
        clip_norm: largest gradient norm; 0 for none.
        factor: on every learning rate.
        seed: of the random numbers of the step's first micro-batch; each further one has the next.
        ranks: the processes that share the step; all take it alike.
        precision: of the forward; its scaler goes on from step to step.

    Raises:
        Diverged: a loss is not finite; no weight has changed.
    """
    for group in optim.param_groups:
        group["lr"] = group["base_lr"] * factor
    trained = {id(parameter) for group in optim.param_groups for parameter in group["params"]}
    parameters = [parameter for parameter in detector.parameters() if id(parameter) in trained]
    running, mine = _Running(detector), PairwiseSum()
    found = ranks.share(lambda: _run(detector, part, parameters, running, seed, mine, precision))
    losses = _means(list(itertools.chain(*found)))
    like = [*parameters, *running.values]
    summed = over_ranks(mine.total() if part.batches else [None] * len(like), like, ranks)
    for parameter, gradient in zip(parameters, summed):
        parameter.grad = gradient
    running.move(summed[len(parameters) :])
    precision.scaler.unscale_(optim)
    norm = nn.utils.clip_grad_norm_(parameters, clip_norm or math.inf)
    precision.scaler.step(optim)
    precision.scaler.update()
    return losses, norm


@dataclass
class Found:
    """What a micro-batch gave: its loss terms and the weighted `total` by name; the ids of its images."""

    terms: dict[str, float]
    image_ids: list[int]

    @property
    def bad(self) -> list[str]:
        """The terms that are not finite."""
        names = sorted(name for name, value in self.terms.items() if not math.isfinite(value))
        return [name for name in names if name != "total"] or names


def _run(
    detector: Detector,
    part: Part,
    parameters: Sequence[nn.Parameter],
    running: _Running,
    seed: int,
    into: PairwiseSum,
    precision: Precision,
) -> list[Found]:
    """Runs one micro-batch after the other; adds up shares of the gradient, and of the new running statistics."""
    terms = []
    for number, batch in enumerate(part.batches, part.first):
        torch.manual_seed((seed + number) % 2**63)
        detector.zero_grad(set_to_none=True)
        terms.append(_backward(detector, batch, part, precision))
        into.add([*(parameter.grad for parameter in parameters), *(value / part.count for value in running.values)])
        running.reset()
    return _read(terms, part.batches)


def _backward(detector: Detector, batch: Batch, part: Part, precision: Precision) -> dict[str, Tensor]:
    """Leaves one micro-batch's share of the gradient with the parameters; returns its loss terms."""
    batch = batch.to(next(detector.parameters()).device)
    with _naming(batch, detector):
        with precision.autocast():
            out = detector(batch.images, batch.masks, targets=batch.targets)
        losses = detector.criterion(out, batch.targets, part.num_boxes)
        total = detector.criterion.total(losses)
        precision.scaler.scale(total / part.count).backward()
    return {**losses, "total": total}


@contextlib.contextmanager
def _naming(batch: Batch, detector: Detector) -> Iterator[None]:
    """Says of what fails inside which images did it, or what would fit."""
    try:
        yield
    except Diverged as error:
        raise _diverged(error.message, batch.image_ids, {}) from error
    except (torch.OutOfMemoryError, MemoryError) as error:
        count, _, height, width = batch.images.shape
        less = ["activation_checkpointing=true"] if can_recompute(detector) else []
        fits = " or ".join([*less, "micro_batch=1" if count > 1 else "shortest=SMALLER"])
        raise EnvironmentLacking(f"out of memory: {count} x {height} x {width} pixels at once; --set {fits}") from error
    except Exception as error:
        if comes_from_the_compiler(error):
            reason = str(error).strip().splitlines()[0]
            raise EnvironmentLacking(f"torch.compile failed: {reason}", "--set compile=false") from error
        raise


def _diverged(message: str, image_ids: Sequence[int], terms: Mapping[str, float]) -> Diverged:
    error = Diverged(f"{message}, images {', '.join(map(str, image_ids))}", "lower lr, or raise warmup_steps")
    said = {name: value if math.isfinite(value) else str(value) for name, value in terms.items()}
    error.batch = {"image_ids": list(image_ids), "terms": said}
    return error


def _read(terms: Sequence[dict[str, Tensor]], batches: Sequence[Batch]) -> list[Found]:
    """Waits for the device, once."""
    values = [value.detach() for found in terms for value in found.values()]
    numbers = iter(torch.stack(values).tolist() if values else [])
    return [Found({name: next(numbers) for name in found}, batch.image_ids) for found, batch in zip(terms, batches)]


def _means(found: Sequence[Found]) -> dict[str, float]:
    """Mean of each term over the micro-batches; one without the term counts as 0."""
    for each in found:
        if each.bad:
            message = f"training diverged: {', '.join(each.bad)} is not finite"
            raise _diverged(message, each.image_ids, each.terms)
    sums: dict[str, float] = {}
    for each in found:
        for name, value in each.terms.items():
            sums[name] = sums.get(name, 0.0) + value
    return {name: value / len(found) for name, value in sums.items()}


class _Running:
    """What batch normalisation keeps beside its parameters, where a backbone has it that is not frozen.

    Each micro-batch starts from what was there before the step; the step then moves it once, to the mean.
    """

    def __init__(self, detector: nn.Module) -> None:
        layers = [module for module in detector.modules() if isinstance(module, _BatchNorm) and module.training]
        kept = [(layer.running_mean, layer.running_var) for layer in layers]
        self.values = [value for pair in kept for value in pair if value is not None]
        self.counters = [layer.num_batches_tracked for layer in layers if layer.num_batches_tracked is not None]
        self.before = [value.clone() for value in (*self.values, *self.counters)]

    @torch.no_grad()
    def reset(self) -> None:
        """As before the step."""
        for value, before in zip((*self.values, *self.counters), self.before, strict=True):
            value.copy_(before)

    @torch.no_grad()
    def move(self, values: Sequence[Tensor | None]) -> None:
        """To the values given, by one step."""
        for value, new in zip(self.values, values, strict=True):
            if new is not None:
                value.copy_(new)
        for counter in self.counters:
            counter.add_(1)
