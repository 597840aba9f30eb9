"""What one forward runs, in its order, with the shapes of its tensors: what that costs is the asker's business.

Everything below autograd is seen as it is executed, within the modules that are running. What was recorded is JSON:

    operators   [name, overload, is it a view, is it pointwise]
    scopes      names of the modules that are running, outermost first
    tensors     [shape, dtype]
    events      [what ran, scope, arguments, output]: an operator by its place in `operators`, a compiled function by
                its name, a module that counts as one by {"kind": its class, "said": its plain attributes}

A tensor among arguments and outputs is {"tensor": its place in `tensors`}, the same one wherever it is met again. What
is neither tensor, number, text nor a list of these is null.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from . import bounds, functions
from .scopes import Scopes


class _Table:
    """Things that are met often, each written once."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self._places: dict[Hashable, int] = {}

    def place(self, row: Hashable) -> int:
        if row not in self._places:
            self._places[row] = len(self.rows)
            self.rows.append(row)
        return self._places[row]


class Recorder(TorchDispatchMode):
    """Records what runs while it is active.

    Args:
        module: whose modules are told apart.
        as_one: what the name of a class contains whose modules count as one, however they are written.
    """

    def __init__(self, module: nn.Module, as_one: Sequence[str]) -> None:
        super().__init__()
        self._operators, self._scopes = _Table(), _Table()
        self._tensors: list[tuple[list[int], str]] = []
        self._events: list[list[Any]] = []
        self._as_one = as_one
        self._within = Scopes(module, self._counts_as_one, self._note_whole)

    def found(self) -> dict[str, Any]:
        """All that was recorded."""
        rows = {"operators": self._operators.rows, "scopes": self._scopes.rows}
        return {**rows, "tensors": self._tensors, "events": self._events}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Records what runs inside the block."""
        with torch.no_grad(), functions.watched(self._note), bounds.nms_of_all_classes(), self._within.watching(), self:
            yield

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = bounds.longest(func, args)
        if out is NotImplemented:
            out = func(*args, **(kwargs or {}))
        if not self._within.whole:
            pointwise = torch.Tag.pointwise in func.tags
            schema = func._schema
            self._note(self._operators.place((schema.name, schema.overload_name, func.is_view, pointwise)), args, out)
        return out

    def _note(self, what: Any, args: Sequence[Any], out: Any = None) -> None:
        self._events.append(
            [what, self._scopes.place(tuple(self._within.running)), self._plain(args), self._plain(out)]
        )

    def _note_whole(self, module: nn.Module, out: Any) -> None:
        said = {name: value for name, value in vars(module).items() if isinstance(value, _PLAIN)}
        self._note({"kind": type(module).__name__, "said": said}, (), out)

    def _counts_as_one(self, module: nn.Module) -> bool:
        return any(part in type(module).__name__ for part in self._as_one)

    def _plain(self, value: Any) -> Any:
        """A value as far as work depends on it."""
        if isinstance(value, Tensor):
            return {"tensor": self._number(value)}
        if isinstance(value, (list, tuple)):
            return [self._plain(each) for each in value]
        return value if isinstance(value, _PLAIN) else None

    def _number(self, tensor: Any) -> int:
        """The tensor's place, which it keeps as an attribute: its id may be another tensor's once it is gone."""
        owner, number = getattr(tensor, "_recorded", (None, 0))
        if owner is not self:
            number = len(self._tensors)
            self._tensors.append((list(tensor.shape), str(tensor.dtype).rpartition(".")[2]))
            tensor._recorded = self, number
        return number


_PLAIN = (bool, int, float, str)
