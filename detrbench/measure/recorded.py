"""Complexity of a detector in another interpreter: what ran is recorded there, and what it costs is worked out here.

So one rule holds for all, whichever PyTorch ran it. `worker.recorder` says what a recording looks like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from detrbench.external.remote import Remote
from detrbench.measure import sampling
from detrbench.measure.inputs import Size
from detrbench.measure.operations import AS_ONE, Work, as_one, work_of
from detrbench.measure.tally import OTHER, Tally


def counts(elsewhere: Remote, sizes: Sequence[Size]) -> tuple[dict[Size, Tally], bool]:
    """The work of one forward of each (height, width), and whether it ran on values, since shapes alone did not do."""
    found = elsewhere.count(sizes, list(AS_ONE))
    return {size: tally(recording) for size, recording in zip(sizes, found["recordings"])}, found["values"]


def parameters(elsewhere: Remote) -> tuple[float, float, dict[str, float]]:
    """Millions of parameters, as `complexity.parameters` counts them; one belongs to the first part that has it."""
    parts = elsewhere.part_names
    by_part, trainable = dict.fromkeys(parts.values(), 0.0), 0.0
    for names, size, trained in elsewhere.parameters_there():
        within = (part for inner, part in parts.items() if any(name.startswith(f"{inner}.") for name in names))
        part = next(within, OTHER)
        by_part[part] = by_part.get(part, 0.0) + size / 1e6
        trainable += trained * size / 1e6
    return sum(by_part.values()), trainable, by_part


def tally(recording: Mapping[str, Any]) -> Tally:
    """The work of a recorded forward."""
    found = Tally()
    stand_ins = [torch.empty(shape, dtype=getattr(torch, of), device="meta") for shape, of in recording["tensors"]]
    for what, place, args, out in recording["events"]:
        scope = tuple(recording["scopes"][place])
        given, made = _value(args, stand_ins), _value(out, stand_ins)
        name, done = _work(what, given, made, recording["operators"])
        found.book(scope, name, done)
        if isinstance(what, int):
            sampling.follow(name, given, made, scope, done or [], found)
    return found


def _work(what: Any, args: tuple[Any, ...], out: Any, operators: Sequence[Any]) -> tuple[str, Work | None]:
    """What ran, by name, and its work."""
    if isinstance(what, str):
        return what, sampling.compiled_work(args)
    if isinstance(what, int):
        name, overload, is_view, pointwise = operators[what]
        return name, work_of(name, overload, is_view, pointwise, args, out)
    counted = as_one(what["kind"])
    assert counted is not None
    return counted(what["said"], out)


def _value(recorded: Any, tensors: Sequence[Tensor]) -> Any:
    """A recorded argument or output with stand-ins for its tensors; several are a tuple, as operators return them."""
    if isinstance(recorded, dict):
        return tensors[recorded["tensor"]]
    return tuple(_value(each, tensors) for each in recorded) if isinstance(recorded, list) else recorded
