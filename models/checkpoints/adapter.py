"""What an adapter is: the names of one code base, in terms of ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from detrbench.errors import CheckpointError

if TYPE_CHECKING:
    from detrbench.models.detector import Detector

Rename = Callable[[re.Match[str], "Detector"], "str | None"]
Rule = tuple[str, "str | Rename | None"]


@dataclass(frozen=True)
class Adapter:
    """Translates a state dict.

    Args:
        name: the code base.
        marker: a name that only this code base has; regular expression.
        rules: (pattern of a whole name, replacement), first match wins. A replacement is a template for
            `re.Match.expand`, a function of match and detector, or None for names that carry no weight, which
            the function may return too.
    """

    name: str
    marker: str
    rules: tuple[Rule, ...]

    def recognises(self, state: Mapping[str, Tensor]) -> bool:
        """Whether the names are this code base's."""
        return any(re.match(self.marker, name) for name in state)

    def translate(self, state: Mapping[str, Tensor], detector: Detector) -> tuple[dict[str, Tensor], list[str]]:
        """Our name -> tensor, and the names that were left out. Names that no rule knows stay as they are.

        Raises:
            CheckpointError: two names of one tensor hold different values.
        """
        translated: dict[str, Tensor] = {}
        origin: dict[str, str] = {}
        ignored = []
        for name, tensor in state.items():
            ours = self._rename(name, detector)
            if ours is None:
                ignored.append(name)
                continue
            if ours in translated and not torch.equal(translated[ours], tensor):
                raise CheckpointError(
                    f"{name} and {origin[ours]} are one tensor ({ours}) in this detector but differ in the file",
                    "is it a variant whose layers do not share their heads?",
                )
            translated[ours], origin[ours] = tensor, name
        return translated, ignored

    def _rename(self, name: str, detector: Detector) -> str | None:
        for pattern, replacement in self.rules:
            if match := re.fullmatch(pattern, name):
                if replacement is None:
                    return None
                return match.expand(replacement) if isinstance(replacement, str) else replacement(match, detector)
        return name
