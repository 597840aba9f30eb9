"""A worker of another interpreter: what it prints, when it dies or hangs, and that it ends with whoever asks.

The interpreter is this one, and a `sitecustomize` that Python runs as it starts lets it misbehave without PyTorch.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from detrbench.errors import UsageError
from detrbench.external import interpreter
from detrbench.external.interpreter import Worker, WorkerFailed

ROOT = Path(__file__).resolve().parents[2]
QUESTION = {"packages": ["torch"], "module": None}


@pytest.fixture
def starts_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Has every worker run some code first."""

    def set_code(code: str) -> None:
        (tmp_path / "sitecustomize.py").write_text(f"import sys\nif '-c' not in sys.argv:\n    {code}\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return set_code


def test_what_is_printed_does_not_disturb_the_answers(starts_with) -> None:  # type: ignore[no-untyped-def]
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
def test_one_that_dies_says_how(starts_with, code: str, why: str) -> None:  # type: ignore[no-untyped-def]
    starts_with(code)
    worker = Worker(sys.executable, 60.0)
    with pytest.raises(WorkerFailed, match=f"^{sys.executable}: {why}$") as failed:
        worker.ask("describe", **QUESTION)
    assert ("last words" in failed.value.details) == ("last words" in code)
    with pytest.raises(WorkerFailed, match=why):
        worker.ask("describe", **QUESTION)


def test_one_that_dies_is_noticed_though_its_child_holds_the_pipe(starts_with) -> None:  # type: ignore[no-untyped-def]
    starts_with("import os, time; os._exit(3) if os.fork() else time.sleep(20)")
    began = time.monotonic()
    with pytest.raises(WorkerFailed, match="exit code 3"):
        Worker(sys.executable, 60.0).ask("describe", **QUESTION)
    assert time.monotonic() - began < 15


def test_one_that_hangs_is_killed_in_time(starts_with) -> None:  # type: ignore[no-untyped-def]
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
