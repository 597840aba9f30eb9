"""How a run looks: live bars on a terminal, plain lines in a log. Both say how long it will still take."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from detrbench.cli.output import duration
from detrbench.measures import TIMED
from detrbench.run.plan import WorkItem
from detrbench.run.work import Listener, Outcome
from detrbench.words import printable

_QUIET_SECONDS = 20.0


@dataclass
class _Active:
    """An item that is being done, since when, and what was heard of it first: a resumed training is not at 0."""

    started: float
    fraction: float = 0.0
    first: tuple[float, float] | None = None  # time and fraction


class Clock:
    """Time left, from the plan's estimates, corrected by what items really took.

    A measure is corrected by its own items, those under way included; one of which none has begun, as the others are.
    Timed items that are under way at once are timed together: one of them tells how far all are.

    Args:
        items: of the plan.
        jobs: so many are done at once.
        now: the time in seconds.
    """

    def __init__(self, items: Sequence[WorkItem], jobs: int = 1, now: Callable[[], float] = time.monotonic) -> None:
        self.now, self.jobs = now, jobs
        self.pending = [item for item in items if item.state in ("todo", "reused")]
        self.ratios: dict[str, float] = {}
        self.active: dict[int, _Active] = {}  # by the item's identity: items cannot be hashed

    def start(self, item: WorkItem) -> None:
        self.active[id(item)] = _Active(self.now())

    def advance(self, item: WorkItem, fraction: float | None) -> None:
        if fraction is None:
            return
        active = self.active[id(item)]
        active.fraction = fraction
        if active.first is None:
            active.first = self.now(), fraction

    def end(self, outcome: Outcome) -> None:
        self.active.pop(id(outcome.item), None)
        self.pending = [item for item in self.pending if item is not outcome.item]
        # A reason stands beside what was copied from an equal cell, which tells nothing of how long counting takes.
        if outcome.state == "done" and not outcome.why and outcome.item.seconds and outcome.seconds:
            self.ratios[outcome.item.measure] = outcome.seconds / outcome.item.seconds

    def item_left(self, item: WorkItem) -> float | None:
        """Seconds left of an item, or of all that are timed with it; of one that is not being done, all of its own."""
        if id(item) not in self.active:
            return self._estimate(item)
        together = self._together(item)
        for each in together:
            active = self.active[id(each)]
            whole = self._projected(active)
            if whole is not None:
                return whole * (1 - active.fraction)
        estimates = [estimate for each in together if (estimate := self._estimate(each)) is not None]
        since = min(self.active[id(each)].started for each in together)
        return max(sum(estimates) - (self.now() - since), 0.0) if len(estimates) == len(together) else None

    def _together(self, item: WorkItem) -> list[WorkItem]:
        """What is done in one go with an item that is under way, itself among it."""
        if item.measure not in TIMED:
            return [item]
        return [each for each in self.pending if id(each) in self.active and each.measure == item.measure]

    def _projected(self, active: _Active) -> float | None:
        """Seconds of a whole item, from the part that was watched; None while that is too small to tell."""
        if active.first is None:
            return None
        since, at_first = active.first
        done = active.fraction - at_first
        return (self.now() - since) / done if done > 0.01 else None

    def total_left(self) -> float | None:
        """Seconds left of the whole run; None where an item's cost is unknown."""
        shared, alone = 0.0, 0.0
        counted: set[int] = set()
        for item in self.pending:
            if id(item) in counted:
                continue
            if id(item) in self.active:
                counted.update(map(id, self._together(item)))
            left = self.item_left(item)
            if left is None:
                return None
            if item.measure in TIMED:
                alone += left
            else:
                shared += left
        return shared / self.jobs + alone

    def _estimate(self, item: WorkItem) -> float | None:
        return None if item.seconds is None else item.seconds * self._ratio(item.measure)

    def _ratio(self, measure: str) -> float:
        """What items of a measure take, over what the plan said."""
        if measure in self.ratios:
            return self.ratios[measure]
        seen = dict(self.ratios)
        for item in self.pending:
            active = self.active.get(id(item))
            whole = self._projected(active) if active and active.fraction >= 0.05 else None
            if active and item.seconds and whole is not None:
                seen[item.measure] = whole / sum(each.seconds or 0.0 for each in self._together(item))
        return seen.get(measure, statistics.median(seen.values()) if seen else 1.0)


def outcome_line(outcome: Outcome) -> str:
    """`sparse-0.1  accuracy  done  12 s`."""
    words = {"not_measured": "not measured"}.get(outcome.state, outcome.state)
    why = f": {outcome.why}" if outcome.why else ""
    seconds = f"  {duration(outcome.seconds)}" if outcome.seconds >= 0.5 else ""
    return f"{outcome.item.cell.id}  {outcome.item.measure}  {words}{why}{seconds}"


class PlainLines:
    """One line for each thing that ends, each epoch, and otherwise every 20 seconds."""

    def __init__(self, console: Console, jobs: int = 1, now: Callable[[], float] = time.monotonic) -> None:
        self.console, self.jobs, self.now = console, jobs, now
        self.done = 0
        self.total = 0
        self.last = now()

    def begin(self, items: Sequence[WorkItem]) -> None:
        self.clock = Clock(items, self.jobs, self.now)
        self.total = len(self.clock.pending)

    def start(self, item: WorkItem) -> None:
        self.clock.start(item)
        self.last = self.now()

    def advance(self, item: WorkItem, fraction: float | None, text: str, milestone: bool = False) -> None:
        self.clock.advance(item, fraction)
        if milestone or self.now() - self.last >= _QUIET_SECONDS:
            self.last = self.now()
            left = f"{duration(self.clock.item_left(item))} left, {duration(self.clock.total_left())} in all"
            self._print(f"[{self.done + 1}/{self.total}] {item.cell.id}  {item.measure}  {text}  ({left})")

    def end(self, outcome: Outcome) -> None:
        self.clock.end(outcome)
        if outcome.item.state in ("todo", "reused"):
            self.done += 1
            self._print(f"[{min(self.done, self.total)}/{self.total}] {outcome_line(outcome)}")

    def close(self) -> None:
        """Nothing to tidy."""

    def _print(self, line: str) -> None:
        self.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


class LiveBars:
    """A bar of each item that is being done and one of the whole run, below the lines of what has ended."""

    def __init__(self, console: Console, jobs: int = 1) -> None:
        self.jobs = jobs
        columns = TextColumn("{task.description}"), BarColumn(bar_width=28), TextColumn("{task.fields[text]}")
        self.progress = Progress(*columns, console=console, transient=True)
        self.item_bars: dict[int, TaskID] = {}  # by the item's identity
        self.run_bar: TaskID

    def begin(self, items: Sequence[WorkItem]) -> None:
        self.clock = Clock(items, self.jobs)
        total = max(len(self.clock.pending), 1)
        self.run_bar = self.progress.add_task("whole run", total=total, text="")
        self.progress.start()

    def start(self, item: WorkItem) -> None:
        self.clock.start(item)
        self.item_bars[id(item)] = self.progress.add_task(f"{item.cell.id}  {item.measure}", total=1.0, text="")
        self._show_left()

    def advance(self, item: WorkItem, fraction: float | None, text: str, milestone: bool = False) -> None:
        self.clock.advance(item, fraction)
        left = duration(self.clock.item_left(item))
        self.progress.update(self.item_bars[id(item)], completed=fraction, text=f"{text}, {left} left")
        self._show_left()

    def end(self, outcome: Outcome) -> None:
        self.clock.end(outcome)
        if id(outcome.item) in self.item_bars:
            self.progress.remove_task(self.item_bars.pop(id(outcome.item)))
        if outcome.item.state in ("todo", "reused"):
            self.progress.advance(self.run_bar)
            self.progress.console.print(printable(outcome_line(outcome)), markup=False, highlight=False)
        self._show_left()

    def close(self) -> None:
        """Takes the bars away."""
        self.progress.stop()

    def _show_left(self) -> None:
        self.progress.update(self.run_bar, text=f"{duration(self.clock.total_left())} left")


def listener(console: Console, jobs: int = 1) -> Listener:
    """Bars where somebody watches; lines in CI, in a pipe, and where NO_COLOR asks for plain text."""
    plain = not console.is_terminal or any(os.environ.get(name) for name in ("CI", "NO_COLOR"))
    return PlainLines(console, jobs) if plain else LiveBars(console, jobs)
