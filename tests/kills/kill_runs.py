"""Kills runs at random moments, runs them again, and holds what they leave against a run that nobody disturbed.

    python tests/kills/kill_runs.py                       60 kills: SIGKILL, SIGTERM, SIGINT, one process and two
    python tests/kills/kill_runs.py --kills 6 --seed 3

A run is killed, started again, killed again, until it comes to its end; then every record and every weight has to be
that of the undisturbed run, bit for bit. Exits with 1 where a kill was not survived.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detrbench import cli
from detrbench.measures import MEASURES
from detrbench.run import execute  # noqa: F401  (with torch: what is forked from here need not import it again)

SUITE = """\
name: killed
title: A run to be killed
defaults: {num_queries: 20, num_encoder_layers: 2, num_decoder_layers: 2, hidden_dim: 64, ffn_dim: 64}
variants:
  - {id: "sparse-{keep_ratio}", model: sparse_detr_tiny, matrix: {keep_ratio: [0.3, 0.5]}}
scales:
  smoke: {data: shapes, num_train: 12, num_val: 4, image_size: 64, batch_size: 4, epochs: 3, checkpoint_every_steps: 1}
measure: [accuracy, dam]
"""
CODES = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}
PATIENCE = 300.0  # seconds that a run has for its first step
GRACE = 20.0  # seconds that processes have to end after their parent


@dataclass
class Tally:
    """Kills with one signal of runs with one number of processes: what they hit, and which were not survived."""

    hit: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return sum(self.hit.values())


def start(folder: Path, jobs: int) -> int:
    """A run of the suite as a process of its own; its id."""
    process = os.fork()
    if process:
        return process
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    arguments = ["run", str(folder / "killed.yaml"), "--results", str(folder / "results"), "--jobs", str(jobs)]
    code = 3
    with contextlib.suppress(BaseException):
        code = cli.main([*arguments, "--device", "cpu"])
    os._exit(code)


def finish(process: int) -> int:
    """The exit code of a process, as `subprocess` has it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def ended(process: int) -> bool:
    """Whether a process has ended; it can still be waited for."""
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def wait_for(holds: Callable[[], bool], seconds: float) -> bool:
    """Waits until something holds; whether it came to that in time."""
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def at_work(results: Path) -> list[str]:
    """The measures that the statuses of cells call running."""
    found = []
    for status in results.glob("*/*/cells/*/status.json"):
        with contextlib.suppress(OSError, ValueError):  # replaced at this very moment
            measures = json.loads(status.read_text())["measures"]
            found += [name for name, entry in measures.items() if entry["state"] == "running"]
    return found


def holders(folder: Path) -> list[str]:
    """Processes that have files of a folder open."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(link).startswith(f"{folder}/results"):
                found.append(link.parts[2])
    return found


def left_behind(folder: Path) -> dict[str, Any]:
    """All figures and digests of weights of a results folder, without how long anything took."""
    found = {}
    for path in sorted(folder.glob("results/*/*/cells/*/*.json")):
        if path.stem in MEASURES:
            name = f"{path.parent.name}/{path.name}"
            found[name] = _timeless(json.loads(path.read_text())["records"])
    for path in sorted(folder.glob("results/*/*/cells/*/**/*.safetensors")):
        found[f"{path.parent.parent.name}/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(item) for name, item in value.items() if name != "seconds"}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def kill_once(folder: Path, jobs: int, number: signal.Signals, longest: float, rng: random.Random) -> list[str] | None:
    """Starts a run and kills it: what it was at, or None where it came to its end before.

    Raises:
        AssertionError: it ended with another exit code than it should, or left processes behind.
    """
    said = len(_log(folder))
    process = start(folder, jobs)

    def begun() -> bool:
        """At work by its own account: what an earlier kill left may say so before this run heeds any signal."""
        return len(_log(folder)) > said and bool(at_work(folder / "results"))

    assert wait_for(lambda: begun() or ended(process), PATIENCE), "the run never began"
    wait_for(lambda: ended(process), rng.uniform(0, longest))
    hit = at_work(folder / "results")
    if ended(process):
        code = finish(process)
        assert code == 0, f"the run ended with {code}: {_last_line(folder)}"
        return None
    os.kill(process, number)
    code = finish(process)
    assert code in (CODES[number], 0), f"{number.name} gave the exit code {code}: {_last_line(folder)}"
    assert wait_for(lambda: not holders(folder), GRACE), f"processes outlived {number.name}"
    if number is not signal.SIGKILL:
        assert "Traceback" not in _log(folder), f"a traceback after {number.name}"
    return hit or ["between steps"]


def _log(folder: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return (folder / "log.txt").read_text()
    return ""


def _last_line(folder: Path) -> str:
    return (_log(folder).strip().splitlines() or ["no output"])[-1]


def trial(jobs: int, number: signal.Signals, kills: int, longest: float, expected: Any, rng: random.Random) -> Tally:
    """So many kills of runs, each begun again until it is done and then compared."""
    tally = Tally()
    while tally.kills < kills:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            (folder / "killed.yaml").write_text(SUITE)
            try:
                _until_done(folder, jobs, number, kills, longest, tally, rng)
                found = left_behind(folder)
                differing = sorted(
                    name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
                )
                assert not differing, f"other results: {', '.join(differing)}"
            except AssertionError as error:
                tally.lost.append(str(error))
                return tally
    return tally


def _until_done(
    folder: Path, jobs: int, number: signal.Signals, kills: int, longest: float, tally: Tally, rng: random.Random
) -> None:
    while tally.kills < kills:
        hit = kill_once(folder, jobs, number, longest, rng)
        if hit is None:
            return
        what = " and ".join(sorted(set(hit)))
        tally.hit[what] = tally.hit.get(what, 0) + 1
    code = finish(start(folder, jobs))
    assert code == 0, f"the run after the last kill ended with {code}: {_last_line(folder)}"


def undisturbed() -> tuple[Any, float]:
    """What a run leaves that nobody disturbs, and its seconds."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "killed.yaml").write_text(SUITE)
        began = time.monotonic()
        code = finish(start(folder, 1))
        assert code == 0, _last_line(folder)
        return left_behind(folder), time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60, help="shared out over three signals, one process and two")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    expected, seconds = undisturbed()
    print(f"undisturbed: {len(expected)} records and weights in {seconds:.0f} s", flush=True)
    lost = 0
    for jobs in (1, 2):
        for number in CODES:
            rng = random.Random(f"{given.seed} {jobs} {number}")
            tally = trial(jobs, number, -(-given.kills // 6), 0.6 * seconds, expected, rng)
            hit = ", ".join(f"{count} in {what}" for what, count in sorted(tally.hit.items()))
            print(f"{number.name}, {jobs} process{'es' * (jobs > 1)}: {tally.kills} kills ({hit}), lost: ", end="")
            print("; ".join(tally.lost) or "nothing", flush=True)
            lost += len(tally.lost)
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
