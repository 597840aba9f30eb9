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

    item: Any = SimpleNamespace(cell=SimpleNamespace(settings=SimpleNamespace(data="shapes", eval_size=(32, 48))))
    monkeypatch.setattr(steps, "load", lambda *_: detector)
    with pytest.raises(Expired, match=r"30 forwards of 0\.0 s take longer than its 0\.005 minutes"):
        steps.load_and_try(item, "cpu", Any, 0.3)
    assert calls == [(1, 3, 32, 48)] * 2
    assert steps.load_and_try(item, "cpu", Any, 3600.0) is detector


def _die(*work: Any) -> None:
    os._exit(3)


def _fail(*work: Any) -> None:
    raise ValueError("no such mode")


def _hang(*work: Any) -> None:
    time.sleep(60)


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
        steps._time_in_a_fresh_process({}, "cpu", Any, Any, 1)
    assert not [child for child in multiprocessing.active_children() if child.is_alive()]
    assert time.monotonic() - began < 30  # half as long as the one that hangs
