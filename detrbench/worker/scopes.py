"""Where in a detector something runs: the modules around it, told by hooks as they begin and end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook


class Scopes:
    """The modules of a detector that are running.

    Args:
        detector: whose modules are told apart.
        counts_as_one: whether what runs inside a module says less than the module as a whole.
        ended: takes such a module and its output when it ends, while it still is among those that are running.

    Attributes:
        names: of all modules below the detector, by their id.
        running: names, outermost first.
        whole: how many of those count as one.
    """

    def __init__(
        self, detector: nn.Module, counts_as_one: Callable[[nn.Module], bool], ended: Callable[[nn.Module, Any], None]
    ) -> None:
        self.names = {id(module): name for name, module in detector.named_modules() if name}
        self.running: list[str] = []
        self.whole = 0
        self._counts_as_one, self._ended = counts_as_one, ended

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Follows what runs inside the block."""
        hooks = register_module_forward_pre_hook(self._before), register_module_forward_hook(self._after)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _before(self, module: nn.Module, args: Any) -> None:
        if id(module) in self.names:
            self.running.append(self.names[id(module)])
            self.whole += self._counts_as_one(module)

    def _after(self, module: nn.Module, args: Any, out: Any) -> None:
        if id(module) not in self.names:
            return
        if self._counts_as_one(module):
            self.whole -= 1
            self._ended(module, out)
        self.running.pop()
