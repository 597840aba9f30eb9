"""A step that takes too long is given up, whatever catches errors on its way; nothing of the limit stays behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from detrbench.run import steps
from detrbench.run.time_limit import Expired, time_limit


def sleep_on() -> None:
    """What swallows every error and goes on, as some libraries do."""
    try:
        time.sleep(30)
    except Exception:
        time.sleep(30)


def test_what_takes_too_long_is_stopped_where_it_is() -> None:
    began = time.monotonic()
    with pytest.raises(Expired, match="took longer than its"), time_limit(0.05):
        sleep_on()
    assert time.monotonic() - began < 20
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_what_ends_in_time_leaves_no_alarm() -> None:
    with time_limit(60.0):
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 60
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.parametrize("seconds", [None, 0.0])
def test_without_a_limit_there_is_none(seconds: float | None) -> None:
    with time_limit(seconds):
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_in_another_thread_the_block_runs_to_its_end() -> None:
    done = []

    def work() -> None:
        with time_limit(0.01):
            time.sleep(0.05)
        done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done


def test_a_detector_too_slow_to_be_timed_is_told_from_two_forwards(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def detector(images: Any, masks: Any) -> None:
        calls.append(tuple(images.shape))
        time.sleep(0.02)

    cell = SimpleNamespace(settings=SimpleNamespace(data="shapes", eval_size=(32, 48)))
    item: Any = SimpleNamespace(cell=cell)
    monkeypatch.setattr(steps, "load", lambda *_: detector)
    with pytest.raises(Expired, match=r"30 forwards of 0\.0 s take longer than its 0\.005 minutes"):
        steps.load_and_try(item, "cpu", Any, 0.3)
    assert calls == [(1, 3, 32, 48)] * 2
    assert steps.load_and_try(item, "cpu", Any, 3600.0) is detector
    with pytest.raises(Expired, match="60 forwards"):
        steps.load_and_try(item, "cpu", Any, 0.3, processes=2)


def _die(*work: Any) -> None:
    os._exit(3)


def _fail(*work: Any) -> None:
    raise ValueError("no such mode")


def _hang(*work: Any) -> None:
    time.sleep(60)


def _tell(progress: Any, *work: Any) -> str:
    progress(0, 2)
    progress(1, 2)
    return "times"


def test_a_process_that_repeats_a_timing_tells_of_its_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    forking = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: forking)
    monkeypatch.setattr(steps, "_time_anew", _tell)
    told: list[tuple[int, int]] = []
    found: Any = steps._time_in_a_fresh_process({}, "cpu", Any, Any, 1, lambda *at: told.append(at))
    assert (found, told) == ("times", [(0, 2), (1, 2)])


def test_rounds_are_told_as_a_share_of_all_protocols(monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(group: Any, name: str, device: str, report: Any, *rest: Any) -> dict[str, Any]:
        report(None, f"{name} begins", milestone=True)
        report(0.5, f"{name}: 1 of 2 rounds")
        return dict.fromkeys(group, name)

    monkeypatch.setattr(steps, "_timed", timed)
    told: list[tuple[Any, ...]] = []
    cell = SimpleNamespace(protocols_of=lambda measure: ["common", "batched"])
    ready: Any = {"A": (SimpleNamespace(cell=cell), None)}
    found = steps.take_latency(ready, "cpu", lambda *at, **how: told.append(at[:2]), Any)
    assert found == {"A": {"common": "common", "batched": "batched"}}
    assert told == [
        (None, "common begins"), (0.25, "common: 1 of 2 rounds"),
        (None, "batched begins"), (0.75, "batched: 1 of 2 rounds"),
    ]  # fmt: skip


@pytest.mark.parametrize(("does", "error", "said"), [
    (_die, RuntimeError, "exit code 3"), (_fail, ValueError, "no such mode"), (_hang, Expired, "took longer"),
])  # fmt: skip
def test_a_process_that_repeats_a_timing_never_holds_the_run_up(
    monkeypatch: pytest.MonkeyPatch, does: Any, error: type[Exception], said: str
) -> None:
    forking = multiprocessing.get_context("fork")  # what is put in place here reaches no process that starts anew
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: forking)
    monkeypatch.setattr(steps, "_time_anew", does)
    began = time.monotonic()
    with pytest.raises(error, match=said), time_limit(2.0 if does is _hang else 60.0):
        steps._time_in_a_fresh_process({}, "cpu", Any, Any, 1, lambda done, rounds: None)
    assert not [child for child in multiprocessing.active_children() if child.is_alive()]
    assert time.monotonic() - began < 30  # half as long as the one that hangs
