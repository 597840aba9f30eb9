"""Meta tensors that operators return, remembered: the same operator on the same shapes returns the same shapes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

_MOST = 200_000  # remembered calls, some hundred bytes each; beyond that all are forgotten


class _NotRemembered(Exception):
    """An argument that cannot be part of a key, or an output that is more than shapes."""


class MetaOutputs:
    """Runs operators; those that only read meta tensors and return new ones are run once for each set of shapes.

    An operator that writes to an argument, or returns a view of one, always runs.
    """

    def __init__(self) -> None:
        self._outputs: dict[Hashable, Any] = {}
        self._pure: dict[Any, bool] = {}

    def run(self, func: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What `func(*args, **kwargs)` returns."""
        if not self._is_pure(func):
            return func(*args, **kwargs)
        try:
            key = func, tuple(map(_key, args)), tuple((name, _key(value)) for name, value in kwargs.items())
        except _NotRemembered:
            return func(*args, **kwargs)
        known = self._outputs.get(key)
        if known is not None:
            return _made(known)
        out = func(*args, **kwargs)
        try:
            made_from = _recipe(out)
        except _NotRemembered:
            return out
        if len(self._outputs) >= _MOST:
            self._outputs.clear()
        self._outputs[key] = made_from
        return out

    def _is_pure(self, func: torch._ops.OpOverload) -> bool:
        pure = self._pure.get(func)
        if pure is None:
            schema = func._schema
            pure = all(value.alias_info is None for value in (*schema.arguments, *schema.returns))
            self._pure[func] = pure
        return pure


META_OUTPUTS = MetaOutputs()


def _key(value: Any) -> Hashable:
    """What an operator's output depends on; the class too, for 1, 1.0 and True are equal and promote otherwise."""
    kind = value.__class__
    if isinstance(value, Tensor):
        if value.device.type != "meta" or value.layout is not torch.strided:
            raise _NotRemembered
        return value.shape, value.stride(), value.dtype
    if kind in (list, tuple):
        return kind, tuple(map(_key, value))
    if value is None or kind in (int, float, bool, str, torch.dtype, torch.device, torch.layout, torch.memory_format):
        return kind, value
    raise _NotRemembered


def _recipe(out: Any) -> Any:
    if isinstance(out, Tensor):
        if out.device.type != "meta" or out.layout is not torch.strided or out.storage_offset():
            raise _NotRemembered
        return out.shape, out.stride(), out.dtype
    if isinstance(out, tuple | list):
        return [_recipe(each) for each in out]
    raise _NotRemembered


def _made(recipe: Any) -> Any:
    if isinstance(recipe, list):
        return tuple(_made(each) for each in recipe)
    shape, stride, dtype = recipe
    return torch.empty_strided(shape, stride, dtype=dtype, device="meta")
