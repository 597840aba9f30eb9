"""Sums whose bits do not depend on how many processes share the work."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detrbench.ranks import Ranks

Values = list[Tensor | None]


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


@torch.no_grad()
def over_ranks(values: Values, like: Sequence[Tensor], ranks: Ranks) -> Values:
    """The sum over all processes, the same everywhere; None where none of them has anything.

    On CPUs its bits are those of one process, if each took an equal share and they are a power of two. GPUs add up in
    the order that is fastest for them.

    Args:
        values: of this process.
        like: for each a tensor of its shape and type.
        ranks: the processes.
    """
    if ranks.size == 1:
        return values
    there = [any(some) for some in zip(*ranks.share(lambda: [value is not None for value in values]))]
    present = [(value, shape) for value, shape, some in zip(values, like, there) if some]
    flat = ranks.together(
        lambda: torch.cat([(torch.zeros_like(shape) if value is None else value).flatten() for value, shape in present])
    )
    if flat.device.type == "cpu":
        whole = PairwiseSum()
        for part in ranks.gather(flat):
            whole.add([part])
        (total,) = whole.total()
        assert total is not None
    else:
        ranks.add_up(flat)
        total = flat
    parts = iter(total.split([shape.numel() for _, shape in present]))
    return [next(parts).view_as(shape).to(shape.dtype) if some else None for shape, some in zip(like, there)]
