"""Deformable attention as others write it, so that equal work counts equally whoever wrote it.

Three ways are common beside the op of ours:

    written out    transformers, D-FINE, the fallbacks of mmcv and of the official code: `grid_sample` a level, a
                   product with the weights, a sum over the points. Product and sum are one multiply-add, as in the op,
                   and scaling locations from [0, 1] to grid_sample's [-1, 1] is part of the sampling.
    compiled       the official `MSDeformAttnFunction` and its heirs in mmcv and detrex: an autograd function that no
                   counter sees, and that meta tensors do not survive.
    convolutions   torchvision's `deform_conv2d` is an operator, and stands in `operations.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from detrbench.measure.tally import Scope, Tally
from detrbench.models.ops.flops import sampled_channels

Work = list[tuple[str, int]]  # (kind, units)


class _Booked:
    """Arithmetic that was counted, and may turn out to be part of what follows."""

    def __init__(self, scope: Scope, operator: str, work: Work) -> None:
        self.scope, self.operator, self.work = scope, operator, work

    def take_back(self, tally: Tally) -> None:
        """Once, however many operators read what it made."""
        if self.work:
            tally.take_back(self.scope, self.operator, self.work)
            self.work = []


@dataclass(frozen=True)
class _Mark:
    """What is known of a tensor within the module that made it.

    Attributes:
        kind: locations that were scaled, samples of grid_sample, or samples times weights.
        scope: of that module. In another one, which may be remembered instead of run, it means nothing.
        booked: the arithmetic that made it so.
    """

    kind: Literal["scaled", "sampled", "weighted"]
    scope: Scope
    booked: tuple[_Booked, ...] = ()


def follow(name: str, args: tuple[Any, ...], out: Any, scope: Scope, work: Work, tally: Tally) -> None:
    """Follows tensors from operator to operator, and takes back which arithmetic was part of a sampling.

    Args:
        name: of the operator that ran.
        args: of it.
        out: of it.
        scope: of the running modules.
        work: of the operator.
        tally: that it was counted in.
    """
    if name in _KEEPING:
        _keep(args[0], out, scope)
    elif name in _SCALING and len(args) > 1:
        _arithmetic(name, args, out, scope, work)
    elif name in _READING:
        position, kind = _READING[name]
        mark = _mark_of(args[position], scope, kind)
        for booked in mark.booked if mark else ():
            booked.take_back(tally)
        if name == "aten::grid_sampler_2d":
            _mark(out, _Mark("sampled", scope))


def _keep(given: Any, out: Any, scope: Scope) -> None:
    """Moving values changes nothing of what they are."""
    mark = _mark_of(given[0] if isinstance(given, list | tuple) and given else given, scope)
    if mark is not None:
        for each in out if isinstance(out, list | tuple) else [out]:
            _mark(each, mark)


def _arithmetic(name: str, args: tuple[Any, ...], out: Any, scope: Scope, work: Work) -> None:
    """A number added or multiplied scales locations; a product of samples with a tensor weighs them."""
    if isinstance(args[1], int | float):
        before = _mark_of(args[0], scope, "scaled")
        _mark(out, _Mark("scaled", scope, (*(before.booked if before else ()), _Booked(scope, name, work))))
    elif name == "aten::mul" and any(_mark_of(each, scope, "sampled") for each in args[:2]):
        _mark(out, _Mark("weighted", scope, (_Booked(scope, name, work),)))


_KEEPING = frozenset(
    f"aten::{name}"
    for name in (
        "view",
        "_unsafe_view",
        "permute",
        "transpose",
        "select",
        "slice",
        "unsqueeze",
        "expand",
        "split_with_sizes",
        "split",
        "clone",
        "stack",
        "cat",
    )
)
_SCALING = frozenset(("aten::mul", "aten::add", "aten::sub", "aten::rsub"))
_READING = {"aten::grid_sampler_2d": (1, "scaled"), "aten::sum": (0, "weighted")}  # the argument that says it


def _mark(tensor: Any, mark: _Mark) -> None:
    if isinstance(tensor, Tensor):
        tensor._sampling = mark  # type: ignore[attr-defined]


def _mark_of(tensor: Any, scope: Scope, kind: str | None = None) -> _Mark | None:
    mark: _Mark | None = getattr(tensor, "_sampling", None)
    return mark if mark is not None and mark.scope == scope and kind in (None, mark.kind) else None


def compiled_work(args: Sequence[Any]) -> Work:
    """The work of a compiled function, by what it is called with; see `worker.functions`."""
    return [("deformable_attention", sampled_channels(args[0].shape, args[3].shape))]
