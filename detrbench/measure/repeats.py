"""Layers that repeat: what a module did on some shapes is remembered, and booked again instead of run again.

Detectors are chains of like layers, and share their backbones with each other. Two modules are alike if they have the
same class, the same plain attributes, parameters of the same shapes, and children that are alike. What such a module
does on meta tensors follows from the shapes that it is given, so one call of one of them is run, and the others, in
the same detector or in another one, are known. Whatever cannot be compared (an attribute that is an object, a tensor
with values, an argument that the call changes) is run.
"""

from __future__ import annotations

import dataclasses
import itertools
import types
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detrbench.measure.shapes import NotRemembered, key_of, made, recipe_of
from detrbench.measure.tally import Scope, Tally

_MOST = 50_000  # remembered calls, a few hundred MiB; beyond that all are forgotten
_OF_EVERY_MODULE = frozenset(vars(nn.Module())) - {"training"}
_HOOKS = tuple(name for name in _OF_EVERY_MODULE if name.endswith("_hooks"))
_NUMBERS: dict[Hashable, int] = {}  # of each form that was ever met
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, type)

Work = tuple[tuple[int, ...], str, str]
Maker = Callable[[list[Tensor]], Any]  # makes a value anew, out of tensors that are there and new ones, which it adds


@dataclasses.dataclass(frozen=True)
class Done:
    """What a module did in one call.

    Attributes:
        units: ((the running modules by their places in `Call.names`), operator, kind), units.
        calls: by operator.
        make: the returned value.
    """

    units: list[tuple[Work, int]]
    calls: Mapping[str, int]
    make: Maker


class Call:
    """One call of a module, as far as its work depends on it.

    Args:
        module: that is called.
        args, kwargs: that it is called with.
        forms: of the detector that it belongs to.

    Attributes:
        key: equal for calls that do the same work.
        names: of all modules within the called one and within those among the arguments.

    Raises:
        NotRemembered: the work depends on more than shapes.
    """

    def __init__(self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], forms: Forms) -> None:
        self._modules = [module]
        self._tensors: list[Tensor] = []
        given = self._key(tuple(args)), self._key(dict(kwargs))
        first: dict[int, int] = {}
        same = tuple(first.setdefault(id(tensor), place) for place, tensor in enumerate(self._tensors))
        mode = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        self.names, form = forms.of(self._modules)
        self.key: Hashable = (form, given, same, mode)

    def _key(self, value: Any) -> Hashable:
        if isinstance(value, Tensor):
            self._tensors.append(value)
            return key_of(value)
        if isinstance(value, nn.Module):
            self._modules.append(value)
            return nn.Module
        return _parted(value, self._key)

    def done(self, tally: Tally, depth: int, out: Any) -> Done:
        """What was done, in terms that hold for every call of this key.

        Args:
            tally: of this call alone.
            depth: how many modules were running when it was called.
            out: what it returned.

        Raises:
            NotRemembered: it returned more than shapes, or ran a module from elsewhere.
        """
        places = {name: place for place, name in enumerate(self.names)}
        try:
            units = [
                (_one((tuple(places[name] for name in scope[depth:]), operator, kind)), units)
                for (scope, operator, kind), units in tally.units.items()
            ]
        except KeyError:
            raise NotRemembered from None
        return Done(units, tally.calls, _maker(out, list(self._tensors)))

    def again(self, done: Done, scope: Scope, tally: Tally) -> Any:
        """Books what a like call did, and returns what this one would return.

        Args:
            done: of the like call.
            scope: names of the running modules.
            tally: takes the work.
        """
        for (places, operator, kind), units in done.units:
            tally.units[(*scope, *(self.names[place] for place in places)), operator, kind] += units
        for operator, calls in done.calls.items():
            tally.calls[operator] += calls
        return done.make(list(self._tensors))


class Forms:
    """Which modules of a detector are alike; it must not change while this is in use.

    Args:
        names: of its modules, by id.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        self._known: dict[int, int | None] = {}
        self._together: dict[tuple[int, ...], tuple[list[str], int]] = {}

    def of(self, modules: Sequence[nn.Module]) -> tuple[list[str], int]:
        """The names of all modules within some, each once, and the form that they have together.

        Raises:
            NotRemembered: one of them cannot be compared.
        """
        ids = tuple(map(id, modules))
        if ids not in self._together:
            places: dict[int, int] = {}
            # Two may share a third, so it matters which is met again.
            pattern = [places.setdefault(id(each), len(places)) for each in itertools.chain(*map(_walk, modules))]
            form = tuple(map(self._number, modules)), tuple(pattern)
            self._together[ids] = [self._names.get(each, "") for each in places], self._numbered(form)
        return self._together[ids]

    def can_be_compared(self, module: nn.Module) -> bool:
        """Whether it says all about itself."""
        try:
            self._number(module)
        except NotRemembered:
            return False
        return True

    def _number(self, module: nn.Module) -> int:
        """The same for modules that are alike."""
        if id(module) not in self._known:
            self._known[id(module)] = None
            self._known[id(module)] = self._numbered(self._described(module))
        number = self._known[id(module)]
        if number is None:
            raise NotRemembered
        return number

    def _numbered(self, form: Hashable) -> int:
        return _NUMBERS.setdefault(form, len(_NUMBERS))

    def _described(self, module: nn.Module) -> Hashable:
        state = vars(module)
        if any(state.get(name) for name in _HOOKS):
            raise NotRemembered
        own = tuple((name, _plain(value)) for name, value in state.items() if name not in _OF_EVERY_MODULE)
        held = itertools.chain(module._parameters.items(), module._buffers.items())
        tensors = tuple((name, each if each is None else (key_of(each), each.requires_grad)) for name, each in held)
        within = tuple((name, each if each is None else self._number(each)) for name, each in module._modules.items())
        return type(module), type(module).forward, own, tensors, within


class Memory:
    """What calls did, by their keys."""

    def __init__(self) -> None:
        self._done: dict[Hashable, Done] = {}

    def get(self, call: Call) -> Done | None:
        """What a like call did, if there was one."""
        return self._done.get(call.key)

    def keep(self, call: Call, done: Done) -> None:
        """Remember it for all like calls."""
        if len(self._done) >= _MOST:
            self._done.clear()
        self._done[call.key] = done


MEMORY = Memory()


_WORK: dict[Work, Work] = {}


def _one(work: Work) -> Work:
    """The same object for equal work: calls of a layer at other sizes differ in units alone."""
    return _WORK.setdefault(work, work)


def _walk(module: nn.Module) -> Iterator[nn.Module]:
    """A module and all within it, as often as they are reached."""
    yield module
    for child in module._modules.values():
        if child is not None:
            yield from _walk(child)


def _plain(value: Any) -> Hashable:
    """An attribute that says all about itself."""
    if isinstance(value, _FUNCTIONS):
        return value
    if isinstance(value, Tensor):
        raise NotRemembered
    return _parted(value, _plain)


def _parted(value: Any, key: Callable[[Any], Hashable]) -> Hashable:
    """The key of what holds other values, by the keys of these."""
    if isinstance(value, list | tuple):
        return value.__class__, tuple(map(key, value))
    if isinstance(value, dict):
        return dict, tuple((name, key(each)) for name, each in value.items())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return value.__class__, key(vars(value))
    return key_of(value)


def _maker(value: Any, tensors: list[Tensor]) -> Maker:
    """How to make a value again; a tensor that is among those already stays the same one."""
    if isinstance(value, Tensor):
        return _tensor_maker(value, tensors)
    if isinstance(value, list | tuple):
        makers = [_maker(each, tensors) for each in value]
        collect = getattr(value, "_make", value.__class__)  # of a named tuple
        return lambda known: collect([make(known) for make in makers])
    if dataclasses.is_dataclass(value) and not isinstance(value, type | dict):  # one that is both has fields twice
        kind, fields = value.__class__, {name: _maker(each, tensors) for name, each in vars(value).items()}
        return lambda known: _with_fields(kind, {name: make(known) for name, make in fields.items()})
    key_of(value)  # refuses what is more than a plain value
    return lambda known: value


def _tensor_maker(tensor: Tensor, tensors: list[Tensor]) -> Maker:
    for place, each in enumerate(tensors):
        if each is tensor:
            return lambda known: known[place]
    tensors.append(tensor)
    recipe = recipe_of(tensor)

    def make(known: list[Tensor]) -> Tensor:
        known.append(made(recipe))
        return known[-1]

    return make


def _with_fields(kind: type, fields: Mapping[str, Any]) -> Any:
    new: Any = object.__new__(kind)
    vars(new).update(fields)
    return new
