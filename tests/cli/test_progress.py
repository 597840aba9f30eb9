"""What a run says of the time that is left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from detrbench.cli.progress import Clock
from detrbench.run.work import Outcome


@dataclass(frozen=True, eq=False)
class Item:
    """What a clock looks at of a work item."""

    measure: str
    seconds: float | None
    state: str = "todo"


def clock(*items: Any, jobs: int = 1) -> tuple[Clock, list[float]]:
    time = [0.0]
    return Clock(items, jobs, lambda: time[0]), time


def test_estimates_are_summed_and_divided_by_the_jobs_that_share_them() -> None:
    items = Item("training", 60.0), Item("accuracy", 20.0), Item("latency", 10.0)
    assert clock(*items)[0].total_left() == 90.0
    assert clock(*items, jobs=2)[0].total_left() == 50.0  # latency is taken alone
    assert clock(*items, replace(items[0], state="done"))[0].total_left() == 90.0
    assert clock(*items, Item("dam", None))[0].total_left() is None


def test_the_first_cell_tells_of_what_has_not_begun() -> None:
    items = [Item(measure, 100.0) for measure in ("training", "accuracy", "training", "accuracy", "latency")]
    at, time = clock(*items)
    for item in items[:2]:
        at.start(item)
        time[0] += 50.0
        at.end(Outcome(item, "done", None, 50.0))  # type: ignore[arg-type]
    assert at.total_left() == 150.0  # latency too, as this machine is twice as fast as the plan thought


def test_what_is_under_way_tells_from_its_own_pace() -> None:
    one, other = Item("training", 60.0), Item("training", 60.0)
    at, time = clock(one, other, jobs=2)
    at.start(one)
    at.start(other)
    at.advance(one, 0.5)  # resumed in the middle
    time[0] = 10.0
    assert at.item_left(other) == 50.0
    at.advance(one, 0.75)
    assert at.item_left(one) == 10.0
    assert at.item_left(other) == 30.0  # as the one at its side: two thirds of the estimate
    assert at.total_left() == 20.0
    at.end(Outcome(one, "done", None, 30.0))  # type: ignore[arg-type]
    assert at.item_left(other) == 20.0  # half of the estimate, as it was for the one that ended


def test_pace_is_that_since_the_first_word() -> None:
    item = Item("training", 60.0)
    at, time = clock(item)
    at.start(item)
    time[0] = 40.0  # building, and reading data
    at.advance(item, None)  # a remark says nothing of how far it is
    at.advance(item, 0.5)  # resumed
    time[0] = 50.0
    at.advance(item, 0.75)
    assert at.item_left(item) == 10.0


def test_what_is_timed_together_is_counted_once() -> None:
    one, other, later = Item("latency", 60.0), Item("latency", 40.0), Item("memory", 10.0)
    at, time = clock(one, other, later)
    assert at.total_left() == 110.0
    at.start(one)
    time[0] = 5.0
    at.start(other)
    assert at.item_left(one) == at.item_left(other) == 95.0
    assert at.total_left() == 105.0
    at.advance(one, 0.0)
    time[0] = 15.0
    at.advance(one, 0.05)
    assert at.item_left(one) == at.item_left(other) == 190.0
    assert at.total_left() == 210.0  # memory takes twice as long as was thought too, as far as is known
