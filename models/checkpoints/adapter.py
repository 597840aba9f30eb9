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
REVERSED = "[::-1]"


@dataclass(frozen=True)
class Adapter:
    """Translates a state dict.

    Args:
        name: the code base.
        marker: a name that only this code base has; regular expression.
        rules: (pattern of a whole name, replacement), first match wins. A replacement is a template for
            `re.Match.expand`, a function of match and detector, or None for names that carry no weight, which
            the function may return too. A replacement that ends in `[i]` names the i-th of several pieces, which are
            joined along the first dimension; one in `[::-1]` a tensor whose first dimension is counted from its end.
        shared: (pattern of our names, template of ours to copy) for tensors that a file may leave out, all together,
            because its model ties them to another one.
    """

    name: str
    marker: str
    rules: tuple[Rule, ...]
    shared: tuple[tuple[str, str], ...] = ()

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
            if ours.endswith(REVERSED):
                ours, tensor = ours.removesuffix(REVERSED), tensor.flip(0)
            if ours in translated and not torch.equal(translated[ours], tensor):
                raise CheckpointError(
                    f"{name} and {origin[ours]} are one tensor ({ours}) in this detector but differ in the file",
                    "is it a variant whose layers do not share their heads?",
                )
            translated[ours], origin[ours] = tensor, name
        translated = join_pieces(translated)
        self._fill_shared(translated, detector)
        return translated, ignored

    def _fill_shared(self, translated: dict[str, Tensor], detector: Detector) -> None:
        wanted = detector.state_dict()
        for pattern, template in self.shared:
            matches = [match for name in wanted if (match := re.fullmatch(pattern, name))]
            # A file that has one of them should have them all: the others are then missing.
            if any(match.string in translated for match in matches):
                continue
            for match in matches:
                if (source := match.expand(template)) in translated:
                    translated[match.string] = translated[source]

    def _rename(self, name: str, detector: Detector) -> str | None:
        for pattern, replacement in self.rules:
            if match := re.fullmatch(pattern, name):
                if replacement is None:
                    return None
                return match.expand(replacement) if isinstance(replacement, str) else replacement(match, detector)
        return name


def join_pieces(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put `name[0]`, `name[1]`, ... together as `name`; a piece that is missing shows as a wrong shape."""
    joined: dict[str, Tensor] = {}
    pieces: dict[str, dict[int, Tensor]] = {}
    for name, tensor in state.items():
        if match := re.fullmatch(r"(.+)\[(\d+)\]", name):
            pieces.setdefault(match[1], {})[int(match[2])] = tensor
        else:
            joined[name] = tensor
    return joined | {name: torch.cat([found[i] for i in sorted(found)]) for name, found in pieces.items()}
