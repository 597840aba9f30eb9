"""The tool that tries mistakes, on a project of one function and two tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LIST = """\
- file: detrbench/__init__.py
  tests: [tests/test_quick.py]
  mistakes:
    - {id: sum-of-one, means: the second number is forgotten, was: return a + b, now: return a}
    - {id: only-large, means: large sums are off by one, was: a + b, now: a + b + (a > 99)}
    - {id: never, means: nobody sees it, was: return a, now: return 0 + a, equivalent: adding nothing changes nothing}
    - {id: hidden, means: a sum that no test tries, was: a + b, now: a + b + (a == 7)}
"""
PROJECT = {
    "detrbench/__init__.py": "def add(a, b):\n    return a + b\n",
    "tests/test_quick.py": "import detrbench\ndef test(): assert detrbench.add(1, 2) == 3\n",
    "tests/test_other.py": "import detrbench\ndef test(): assert detrbench.add(100, 2) == 102\n",
    "tests/mistakes/list/sums.yaml": LIST,
    "tests/mistakes/test_catalogue.py": "def test(): raise AssertionError('must not be asked')\n",
    "pytest.ini": "[pytest]\nmarkers = full\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in PROJECT.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for name in ("run.py", "catalogue.py"):
        shutil.copy(Path(__file__).with_name(name), tmp_path / "tests" / "mistakes" / name)
    return tmp_path


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tests/mistakes/run.py", *arguments]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)


@pytest.mark.full
def test_what_is_noticed_and_by_which_suite(project: Path) -> None:
    done = run(project, "--jobs", "2")
    assert done.returncode == 1, done.stderr
    outcome = {line.split("s  ")[1].partition(":")[0]: line for line in done.stdout.splitlines() if " s  " in line}
    assert outcome["sum-of-one"].startswith("noticed by selected")
    assert outcome["only-large"].startswith("noticed by test ")
    assert outcome["only-large"].endswith("tests/test_other.py::test")
    assert outcome["never"].startswith("SURVIVED")
    assert outcome["hidden"].startswith("SURVIVED")
    assert "| all | 4 | 1 | 1 | 2 | 1 |" in done.stdout
    assert (project / "detrbench/__init__.py").read_text() == PROJECT["detrbench/__init__.py"]


@pytest.mark.full
def test_equivalent_ones_may_survive_and_tests_must_pass_without_any(project: Path) -> None:
    assert run(project, "--suite", "selected", "-k", "never").returncode == 0
    (project / "tests/test_quick.py").write_text("def test(): assert False\n")
    done = run(project, "--suite", "selected", "-k", "sum-of-one")
    assert (done.returncode, "fails without any mistake" in done.stdout) == (2, True)


HANGS = """\
import os, pathlib, time
import detrbench
def test():
    if detrbench.add(1, 2) != 3:
        pathlib.Path({path!r}).write_text(f"{{os.getpid()}}\\n")
        time.sleep(60)
"""


@pytest.mark.full
def test_an_interrupted_run_leaves_nothing_running_and_no_copy(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    copies = tmp_path_factory.mktemp("copies")
    told = project / "number.txt"
    (project / "tests/test_quick.py").write_text(HANGS.format(path=str(told)))
    command = [sys.executable, "tests/mistakes/run.py", "-k", "sum-of-one"]
    running = subprocess.Popen(command, cwd=project, env={**os.environ, "TMPDIR": str(copies)})
    while not (told.exists() and told.read_text().endswith("\n")):
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    assert running.wait(20) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)
    assert list(copies.glob("mistakes-*")) == []
