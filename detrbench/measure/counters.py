"""Counting a detector's work by running it once on meta tensors: shapes without storage, so any size takes a moment.

PyTorch works out the shape of a meta operator's output in Python, which is nearly all that such a forward takes. As
layers repeat, and as detectors share their parts, `shapes.MetaOutputs` remembers what operators return, and
`repeats.Memory` what whole modules do.

`OperationCounter` sees every operator below autograd and books it where it is *executed*: a shared head that the
query selection calls is query selection's work.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from detrbench.measure import sampling
from detrbench.measure.inputs import Size
from detrbench.measure.operations import Work, as_one, work
from detrbench.measure.repeats import MEMORY, Call, Forms
from detrbench.measure.shapes import META_OUTPUTS, NotRemembered
from detrbench.measure.tally import Tally
from detrbench.worker import bounds, functions
from detrbench.worker.scopes import Scopes


class OperationCounter(TorchDispatchMode):
    """Tallies every operator that runs while it is active, by the modules of `detector` that are running."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.tally = Tally()
        self._detector = detector
        self._within = Scopes(detector, lambda module: _as_one(module) is not None, self._book_whole)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nobody compiles what is counted, and to skip it takes longer than most operators

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # In inference mode composite operators arrive whole; take them apart as they are elsewhere.
        if _is_composite(func):
            with self:
                out = func.decompose(*args, **(kwargs or {}))
                if out is not NotImplemented:
                    return out
        out = bounds.longest(func, args)
        if out is NotImplemented:
            out = META_OUTPUTS.run(func, args, kwargs or {})
        if not self._within.whole:
            name, done = func._schema.name, work(func, args, out)
            self._book(name, done)
            sampling.follow(name, args, out, tuple(self._within.running), done or [], self.tally)
        return out

    def _book(self, operator: str, done: Work | None) -> None:
        self.tally.book(tuple(self._within.running), operator, done)

    def _book_compiled(self, name: str, args: Sequence[Any]) -> None:
        self._book(name, sampling.compiled_work(args))

    def _book_whole(self, module: nn.Module, out: Any) -> None:
        counted = _as_one(module)
        assert counted is not None
        self._book(*counted(out))

    @contextmanager
    def watching(self) -> Iterator[Tally]:
        """Count what runs inside the block; the detector must not be changed there."""
        told = functions.watched(self._book_compiled)
        with self._within.watching(), self._remembering(), told, bounds.nms_of_all_classes(), self:
            yield self.tally

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        """Run those of the detector's modules that hold others only where no like call is known."""
        forms, changed = Forms(self._within.names), []
        for module in self._detector.modules():
            # A forward of its own may be somebody's patch, which must stay where it is.
            if module._modules and "forward" not in vars(module) and forms.can_be_compared(module):
                changed.append(module)
        for module in changed:
            module.forward = functools.partial(self._run, forms, module, module.forward)
        try:
            yield
        finally:
            for module in changed:
                del module.forward

    def _run(self, forms: Forms, module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A module's forward, or what a like call did."""
        try:
            call = Call(module, args, kwargs, forms)
        except NotRemembered:
            return forward(*args, **kwargs)
        done = MEMORY.get(call)
        if done is not None:
            with torch._C._DisableTorchDispatch():  # to make its output again is no work
                return call.again(done, tuple(self._within.running), self.tally)
        before, self.tally = self.tally, Tally()
        try:
            out = forward(*args, **kwargs)
            with contextlib.suppress(NotRemembered):
                if Call(module, args, kwargs, forms).key == call.key:  # otherwise it has changed what it was given
                    MEMORY.keep(call, call.done(self.tally, len(self._within.running), out))
            return out
        finally:
            before.add(self.tally)
            self.tally = before


@functools.cache
def _is_composite(func: Any) -> bool:
    composite = torch._C.DispatchKey.CompositeImplicitAutograd
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), composite))


def _as_one(module: nn.Module) -> Callable[[Tensor], tuple[str, Work]] | None:
    """How a module is counted whose operators say less than it does; None for all others."""
    counted = as_one(type(module).__name__)
    return None if counted is None else functools.partial(counted, vars(module))


def count(detector: nn.Module, height: int, width: int, outputs: str) -> Tally:
    """The work of one forward on one unpadded image, on the device of the detector: meta, or a real one."""
    return counts(detector, [(height, width)], outputs)[height, width]


def counts(
    detector: nn.Module, sizes: Iterable[Size], outputs: str, make: Callable[..., Tensor] | None = None
) -> dict[Size, Tally]:
    """`count` for each of several (height, width); `make` makes the image as `image` does."""
    counter, found = OperationCounter(detector), {}
    with torch.no_grad(), counter.watching():
        for size in sizes:
            counter.tally = found[size] = Tally()
            detector((make or image)(detector, *size), None, outputs=outputs)
    return found


def noise(detector: nn.Module, height: int, width: int) -> Tensor:
    """(1, 3, H, W) random values that the detector takes, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 3, height, width, generator=generator).to(next(detector.parameters()))


def image(detector: nn.Module, height: int, width: int) -> Tensor:
    """(1, 3, H, W) zeros that the detector takes."""
    parameter = next(detector.parameters())
    return torch.zeros(1, 3, height, width, device=parameter.device, dtype=parameter.dtype)
