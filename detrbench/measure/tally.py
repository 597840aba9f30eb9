"""The work of one forward, by what did it; what that costs is the counting rule's business. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from detrbench.measure.rules import CountingRule

Scope = tuple[str, ...]  # names of the modules that were running, outermost first
OTHER = "other"  # work outside every part


@dataclass
class Tally:
    """The work of one forward: units by (scope, operator, kind), and calls by operator."""

    units: Counter[tuple[Scope, str, str]] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Take another one's work too."""
        self.units.update(other.units)
        self.calls.update(other.calls)

    def book(self, scope: Scope, operator: str, work: Iterable[tuple[str, int]] | None) -> None:
        """Adds one call and its (kind, units); None is no call that anybody counts."""
        if work is None:
            return
        self.calls[operator] += 1
        for kind, units in work:
            self.units[scope, operator, kind] += units

    def take_back(self, scope: Scope, operator: str, work: Iterable[tuple[str, int]]) -> None:
        """Forgets one call and its (kind, units), which turned out to be part of another operator."""
        self.calls -= Counter({operator: 1})
        for kind, units in work:
            self.units[scope, operator, kind] -= units

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
