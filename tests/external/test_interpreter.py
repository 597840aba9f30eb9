"""A worker of another interpreter: what it prints, when it dies or hangs, and that it ends with whoever asks.

The interpreter is this one, and a `sitecustomize` that Python runs as it starts lets it misbehave without PyTorch.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from detrbench.errors import UsageError
from detrbench.external import interpreter, sources
from detrbench.external.interpreter import Worker, WorkerFailed

ROOT = Path(__file__).resolve().parents[2]
QUESTION = {"packages": ["torch"], "module": None}


StartsWith = Callable[[str], None]


@pytest.fixture
def starts_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StartsWith:
    """Has every worker run some code first."""

    def set_code(code: str) -> None:
        (tmp_path / "sitecustomize.py").write_text(f"import sys\nif '-c' not in sys.argv:\n    {code}\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return set_code


def test_what_is_printed_does_not_disturb_the_answers(starts_with: StartsWith) -> None:
    starts_with("import os; print('to stdout'); os.write(1, b'raw\\n'); os.system('echo of a child')")
    worker = Worker(sys.executable, 60.0)
    assert worker.ask("describe", **QUESTION)["versions"]["python"] == sys.version.split()[0]
    with pytest.raises(WorkerFailed, match="AttributeError") as failed:
        worker.ask("nothing that it knows")
    for words in ("to stdout", "raw", "of a child", "Traceback"):
        assert words in failed.value.details
    assert "torch" in worker.ask("describe", **QUESTION)["versions"]  # it goes on


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os; os._exit(3)", r"ended \(exit code 3\)"),
        ("import os; print('last words'); os.kill(os.getpid(), 9)", r"ended \(killed: out of memory\?\)"),
        ("import os; os.kill(os.getpid(), 11)", r"ended \(signal SIGSEGV\)"),
    ],
)
def test_one_that_dies_says_how(starts_with: StartsWith, code: str, why: str) -> None:
    starts_with(code)
    worker = Worker(sys.executable, 60.0)
    with pytest.raises(WorkerFailed, match=f"^{sys.executable}: {why}$") as failed:
        worker.ask("describe", **QUESTION)
    assert ("last words" in failed.value.details) == ("last words" in code)
    with pytest.raises(WorkerFailed, match=why):
        worker.ask("describe", **QUESTION)


def test_one_that_dies_is_noticed_though_its_child_holds_the_pipe(starts_with: StartsWith) -> None:
    starts_with("import os, time; os._exit(3) if os.fork() else time.sleep(20)")
    began = time.monotonic()
    with pytest.raises(WorkerFailed, match="exit code 3"):
        Worker(sys.executable, 60.0).ask("describe", **QUESTION)
    assert time.monotonic() - began < 15


def test_one_that_hangs_is_killed_in_time(starts_with: StartsWith) -> None:
    starts_with("import time; time.sleep(60)")
    worker = Worker(sys.executable, 0.3)
    with pytest.raises(WorkerFailed, match=r"did not answer within 0\.005 minutes"):
        worker.ask("describe", **QUESTION)
    assert worker._process.returncode == -signal.SIGKILL
    with pytest.raises(WorkerFailed, match="was ended before"):
        worker.ask("describe", **QUESTION)


def test_it_ends_with_whoever_started_it() -> None:
    code = (
        "from detrbench.external.interpreter import Worker; import sys, time\n"
        f"worker = Worker({sys.executable!r}); worker.ask('describe', packages=[], module=None)\n"
        "assert 'torch' not in sys.modules; print(worker._process.pid, flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{worker}/stat").exists() and Path(f"/proc/{worker}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline, "the worker is still there"
        time.sleep(0.02)


def test_what_is_no_interpreter_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(UsageError, match=f"python: {path}: ") as refused:
            interpreter.describe(str(path), "package")
        assert "/bin/python" in str(refused.value.hint)


def test_it_says_what_figures_depend_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "own_fork.py").write_text("value = 1")
    interpreter.describe.cache_clear()
    first = interpreter.describe(sys.executable, "own_fork")
    assert set(first["versions"]) >= {"python", "torch"}
    assert "mmcv" not in first["versions"]
    (tmp_path / "own_fork.py").write_text("value = 2")
    interpreter.describe.cache_clear()
    assert interpreter.describe(sys.executable, "own_fork")["sources"] != first["sources"]
    with pytest.raises(UsageError, match="no module 'never_written' can be imported"):
        interpreter.describe(sys.executable, "never_written")


def test_another_version_or_other_sources_there_are_another_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"versions": {"python": "3.11.7", "torch": "2.13.0"}, "sources": "a"}
    asked: list[tuple[str, str]] = []

    def describe(python: str, package: str) -> dict[str, object]:
        asked.append((python, package))
        return there

    monkeypatch.setattr(interpreter, "describe", describe)
    source, found = sources.parse("factory:fork.models:build"), []
    for key, value in (("sources", "a"), ("sources", "b"), ("versions", {"python": "3.11.7", "torch": "2.14.1"})):
        there[key] = value
        found.append(json.dumps(sources.identity(source, {}, "/envs/x/bin/python")))
    assert len(set(found)) == 3
    assert set(asked) == {("/envs/x/bin/python", "fork")}
