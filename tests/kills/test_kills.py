"""The script that kills runs: it sees every difference but time, and what it starts it can kill and wait for."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import kill_runs
import pytest


def put(folder: Path, figure: float, weights: bytes = b"w", seconds: float = 1.0) -> None:
    cell = folder / "results" / "killed" / "smoke" / "cells" / "a-1"
    (cell / "checkpoint").mkdir(parents=True, exist_ok=True)
    records = {"common": {"ap": {"value": figure}, "epochs": [{"seconds": seconds}]}}
    (cell / "accuracy.json").write_text(json.dumps({"created": seconds, "records": records}))
    (cell / "status.json").write_text(json.dumps({"measures": {"accuracy": {"state": "running"}}}))
    (cell / "checkpoint" / "model.safetensors").write_bytes(weights)


def test_everything_is_compared_but_time(tmp_path: Path) -> None:
    put(tmp_path, 1.0)
    expected = kill_runs.left_behind(tmp_path)
    assert len(expected) == 2
    assert kill_runs.at_work(tmp_path / "results") == ["accuracy"]
    put(tmp_path, 1.0, seconds=2.0)
    assert kill_runs.left_behind(tmp_path) == expected
    for changed in ({"figure": 1.0 + 1e-15}, {"weights": b"v"}):
        put(tmp_path, **{"figure": 1.0, **changed})  # type: ignore[arg-type]
        assert kill_runs.left_behind(tmp_path) != expected


def run_of(body: Any) -> Any:
    """In place of `start`: a process that does something to the folder."""

    def start(folder: Path, jobs: int) -> int:
        process = os.fork()
        if not process:
            body(folder)
            os._exit(0)
        return process

    return start


def at_work_for_long(folder: Path) -> None:
    put(folder, 1.0)
    (folder / "log.txt").write_text("1 to do\n")
    time.sleep(60)


def done(folder: Path) -> None:
    put(folder, 1.0)


@pytest.mark.parametrize(("body", "hit"), [(at_work_for_long, ["accuracy"]), (done, None)])
def test_a_kill_tells_what_it_hit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: Any, hit: Any) -> None:
    monkeypatch.setattr(kill_runs, "start", run_of(body))
    (tmp_path / "log.txt").write_text("")
    longest = 0.05 if hit else 30.0
    assert kill_runs.kill_once(tmp_path, 1, signal.SIGKILL, longest, random.Random(1)) == hit


def test_other_results_are_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kill_runs, "start", run_of(done))
    monkeypatch.setattr(kill_runs, "kill_once", lambda *_: ["training"])
    monkeypatch.setattr(kill_runs, "_last_line", lambda _: "")
    tally = kill_runs.trial(1, signal.SIGKILL, 2, 0.1, {"a-1/accuracy.json": "other"}, random.Random(1))
    assert tally.hit == {"training": 2}
    assert tally.lost == ["other results: a-1/accuracy.json, a-1/model.safetensors"]


@pytest.mark.full
def test_runs_survive() -> None:
    """In a process of its own: one that has run other tests has threads, which do not survive the fork of a run."""
    script = [sys.executable, kill_runs.__file__, "--kills", "6"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
