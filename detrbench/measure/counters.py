"""Counting a detector's work by running it once on meta tensors: shapes without storage, so any size takes a moment.

PyTorch works out the shape of a meta operator's output in Python, which is nearly all that such a forward takes. As
layers repeat, and as detectors share their backbones, `shapes.MetaOutputs` remembers them.

`OperationCounter` sees every operator below autograd and books it where it is *executed*: a shared head that the
query selection calls is query selection's work. Two other counters, fvcore and torch's `FlopCounterMode`, are asked
about a smaller real forward as a check; what they pass over is listed.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from detrbench.measure.operations import work
from detrbench.measure.rules import CountingRule
from detrbench.measure.shapes import META_OUTPUTS
from detrbench.results.records import CrossCheck

Scope = tuple[str, ...]  # names of the modules that were running, outermost first
OTHER = "other"  # work outside every part


@dataclass
class Tally:
    """The work of one forward: units by (scope, operator, kind), and calls by operator."""

    units: Counter[tuple[Scope, str, str]] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)

    def gflops(self, rule: CountingRule, within: str = "") -> float:
        """The cost of all work, or of what ran while a module was running whose name starts with `within`."""
        return sum(
            units * rule.costs.get(kind, 0)
            for (scope, _, kind), units in self.units.items()
            if not within or any(name == within or name.startswith(within + ".") for name in scope)
        ) / 1e9  # fmt: skip

    def gflops_by_part(self, rule: CountingRule, parts: Mapping[str, str]) -> dict[str, float]:
        """The cost by the outermost part that was running; `parts` maps module names to part names."""
        total = dict.fromkeys(parts.values(), 0.0)
        for (scope, _, kind), units in self.units.items():
            part = next((parts[name] for name in scope if name in parts), OTHER)
            total[part] = total.get(part, 0.0) + units * rule.costs.get(kind, 0) / 1e9
        if not total.get(OTHER):
            total.pop(OTHER, None)
        return total

    def uncounted(self, rule: CountingRule) -> dict[str, int]:
        """Operators that the rule counts as zero, with their calls."""
        counted = {operator for (_, operator, kind), units in self.units.items() if units * rule.costs.get(kind, 0)}
        return {operator: calls for operator, calls in sorted(self.calls.items()) if operator not in counted}


class OperationCounter(TorchDispatchMode):
    """Tallies every operator that runs while it is active, by the modules of `detector` that are running."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.tally = Tally()
        self._names = {id(module): name for name, module in detector.named_modules() if name}
        self._scope: list[str] = []
        self._frozen_norms = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # In inference mode composite operators arrive whole; take them apart as they are elsewhere.
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), torch._C.DispatchKey.CompositeImplicitAutograd):
            with self:
                out = func.decompose(*args, **(kwargs or {}))
                if out is not NotImplemented:
                    return out
        out = META_OUTPUTS.run(func, args, kwargs or {})
        if not self._frozen_norms:
            self._book(func._schema.name, work(func, args, out))
        return out

    def _book(self, operator: str, done: list[tuple[str, int]] | None) -> None:
        if done is None:
            return
        self.tally.calls[operator] += 1
        for kind, units in done:
            self.tally.units[tuple(self._scope), operator, kind] += units

    def _before(self, module: nn.Module, args: Any) -> None:
        if id(module) in self._names:
            self._scope.append(self._names[id(module)])
            self._frozen_norms += _is_frozen_norm(module)

    def _after(self, module: nn.Module, args: Any, out: Any) -> None:
        if id(module) not in self._names:
            return
        if _is_frozen_norm(module):
            # However it is written (two operators, one, a call to batch_norm), it is one frozen batch norm.
            self._frozen_norms -= 1
            self._book("frozen_batch_norm", [("frozen_batch_norm", out.numel())])
        self._scope.pop()

    @contextmanager
    def watching(self) -> Iterator[Tally]:
        """Count what runs inside the block."""
        hooks = register_module_forward_pre_hook(self._before), register_module_forward_hook(self._after)
        try:
            with self:
                yield self.tally
        finally:
            for hook in hooks:
                hook.remove()


def _is_frozen_norm(module: nn.Module) -> bool:
    return "FrozenBatchNorm" in type(module).__name__


def count(detector: nn.Module, height: int, width: int, outputs: str) -> Tally:
    """The work of one forward on one unpadded image, on the device of the detector: meta, or a real one."""
    counter = OperationCounter(detector)
    with torch.no_grad(), counter.watching() as tally:
        detector(_image(detector, height, width), None, outputs=outputs)
    return tally


def _image(detector: nn.Module, height: int, width: int) -> Tensor:
    parameter = next(detector.parameters())
    return torch.zeros(1, 3, height, width, device=parameter.device, dtype=parameter.dtype)


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

        analysis = FlopCountAnalysis(_Tensors(detector, outputs), _image(detector, height, width))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        return CrossCheck(analysis.total() / 1e9, dict(sorted(analysis.unsupported_ops().items())))


def by_torch(detector: nn.Module, height: int, width: int, outputs: str, tally: Tally) -> CrossCheck:
    """What torch's `FlopCounterMode` counts, halved (it takes 2 a multiply-add), and what it has no formula for.

    The latter are the operators to which `tally`, our count of the same forward, gives work.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        detector(_image(detector, height, width), None, outputs=outputs)
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
