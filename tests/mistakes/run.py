"""Makes one mistake of the list after the other in a copy of the checkout, and tells which ones the tests notice.

    python tests/mistakes/run.py [--suite selected|test|full] [-k PART ...] [--jobs N]

First runs the tests that the list names for the file, then, for what survives them, what `make test` runs, then (with
`--suite full`) what `make test-full` adds. Each mistake is tried in a fork of a process that has imported the libraries
but nothing of detrbench, which spares it the seconds that importing torch takes. Ends with 1 where a mistake survives
that the list does not call equivalent, and with 2 where tests fail without any mistake.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import types
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from catalogue import ROOT, Mistake, load

# The list's own test must not notice a mistake: it sees that the file is another one.
PYTEST = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--ignore=tests/mistakes", "--no-header")
SUITES = ("selected", "test", "full")
LIBRARIES = ("torch", "torchvision", "scipy.optimize", "scipy.special", "pandas", "pydantic", "yaml", "PIL.Image",
             "pycocotools.cocoeval", "safetensors.torch", "typer", "jinja2", "matplotlib.figure", "pytest")  # fmt: skip
LEFT_BEHIND = (".git", ".venv", "build", "dist", "__pycache__", "*.egg-info", ".*_cache")
LONGEST = 1200  # seconds: a stage that takes longer than this has been noticed to hang


@dataclass
class Tried:
    """What became of a mistake: the suite that noticed it (None: it survived all), the first test that failed."""

    mistake: Mistake
    noticed_by: str | None = None
    test: str = ""
    seconds: float = 0.0


@dataclass
class Copy:
    """A copy of the checkout in which one mistake at a time is made."""

    folder: Path

    @classmethod
    def at(cls, folder: Path) -> Copy:
        """Copies what tests need; links stay links."""
        shutil.copytree(ROOT, folder, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
        return cls(folder)

    def start(self, arguments: Sequence[str], log: Path, keeps_bytecode: bool = False) -> int:
        """Runs pytest in a process of its own; returns its number."""
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            self._become_pytest(arguments, log, keeps_bytecode)
        with contextlib.suppress(OSError):  # the child does the same; whoever comes second may be too late
            os.setpgid(child, child)
        return child

    def run(self, arguments: Sequence[str], log: Path) -> int:
        """Runs pytest without any mistake, to its end; returns its exit code. Leaves bytecode for those to come."""
        child = self.start(arguments, log, keeps_bytecode=True)
        try:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        except BaseException:  # interrupted: nothing is left running
            end(child)
            raise

    def _become_pytest(self, arguments: Sequence[str], log: Path, keeps_bytecode: bool) -> NoReturn:
        code = 3
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.setpgid(0, 0)
            os.chdir(self.folder)
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            sys.path[:] = [str(self.folder), *(path for path in sys.path if path != str(Path(__file__).parent))]
            # Neither this process nor those it starts may find the checkout itself, or leave code of a mistake.
            os.environ["PYTHONPATH"] = str(self.folder)
            if not keeps_bytecode:
                os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
            sys.dont_write_bytecode = not keeps_bytecode
            import pytest

            import detrbench

            assert Path(str(detrbench.__file__)).parent.parent == self.folder, detrbench.__file__
            # Processes that tests spawn would import this program as theirs.
            sys.modules["__main__"] = types.ModuleType("__main__")
            code = int(pytest.main([*PYTEST, *arguments]))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


@dataclass
class _Attempt:
    """A mistake that is being tried: the suites that are still to be run, and the process that runs one of them."""

    tried: Tried
    copy: Copy
    log: Path
    suites: list[str]
    child: int = 0
    began: float = field(default_factory=time.monotonic)


def arguments_of(suite: str, mistakes: Iterable[Mistake]) -> list[str]:
    """What pytest is given for a suite."""
    if suite == "selected":
        return list(dict.fromkeys(test for mistake in mistakes for test in mistake.tests))
    return ["tests"] if suite == "test" else ["tests", "-m", "full"]


def try_all(mistakes: Sequence[Mistake], suites: Sequence[str], copies: Sequence[Copy], logs: Path) -> Iterator[Tried]:
    """Tries every mistake, as many at a time as there are copies; gives them as they end."""
    running: dict[int, _Attempt] = {}
    try:
        yield from _try_all(list(mistakes), suites, list(copies), logs, running)
    finally:  # interrupted: nothing is left running
        for child in running:
            end(child)


def _try_all(
    waiting: list[Mistake], suites: Sequence[str], free: list[Copy], logs: Path, running: dict[int, _Attempt]
) -> Iterator[Tried]:
    while waiting or running:
        while waiting and free:
            attempt = _begin(waiting.pop(0), free.pop(), suites, logs)
            running[attempt.child] = attempt
        child, failed = _wait(running)
        attempt = running.pop(child)
        suite = attempt.suites.pop(0)
        attempt.tried.seconds = time.monotonic() - attempt.began
        if failed:
            attempt.tried.noticed_by, attempt.tried.test = suite, failed_test(attempt.log)
        elif attempt.suites:
            attempt.child = attempt.copy.start(arguments_of(attempt.suites[0], [attempt.tried.mistake]), attempt.log)
            running[attempt.child] = attempt
            continue
        _unmake(attempt.tried.mistake, attempt.copy)
        free.append(attempt.copy)
        yield attempt.tried


def _begin(mistake: Mistake, copy: Copy, suites: Sequence[str], logs: Path) -> _Attempt:
    path = copy.folder / mistake.file
    Path(importlib.util.cache_from_source(str(path.resolve()))).unlink(missing_ok=True)
    path.write_text(mistake.made_in(path.read_text(encoding="utf-8")), encoding="utf-8")
    if mistake.file.startswith("csrc/"):  # kernels with mistakes must not stay where others would find them
        os.environ["DETRBENCH_CACHE"] = str(copy.folder / ".kernels")
    attempt = _Attempt(Tried(mistake), copy, logs / f"{mistake.id}.log", list(suites))
    attempt.child = copy.start(arguments_of(suites[0], [mistake]), attempt.log)
    os.environ.pop("DETRBENCH_CACHE", None)
    return attempt


def _unmake(mistake: Mistake, copy: Copy) -> None:
    shutil.copyfile(ROOT / mistake.file, copy.folder / mistake.file)


def _wait(running: dict[int, _Attempt]) -> tuple[int, bool]:
    """(number of the process that ended, whether a test failed). A process that never ends is ended."""
    while True:
        for child, attempt in running.items():
            done, status = os.waitpid(child, os.WNOHANG)
            if not done and time.monotonic() - attempt.began > LONGEST * len(SUITES):
                done, status = child, end(child)
            if done:
                return child, os.waitstatus_to_exitcode(status) not in (0, 5)  # 5: no test was selected
        time.sleep(0.02)


def end(child: int) -> int:
    """Ends a process with all that it started; returns the status that waiting for it gives."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def failed_test(log: Path) -> str:
    """The test that failed first, as pytest's summary names it."""
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", log.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    return found[1] if found else "the run itself"


def table(tried: Sequence[Tried], suites: Sequence[str]) -> str:
    """How many mistakes of each area were noticed by which suite."""
    heads = ["area", "mistakes", *(f"noticed by {suite}" for suite in suites), "survived", "of these equivalent"]
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    areas = sorted({each.mistake.area for each in tried})
    for area in [*areas, "all"]:
        mine = [each for each in tried if area in (each.mistake.area, "all")]
        counts = Counter(each.noticed_by for each in mine)
        equivalent = sum(each.noticed_by is None and each.mistake.equivalent is not None for each in mine)
        row = [len(mine), *(counts[suite] for suite in suites), counts[None], equivalent]
        lines.append(f"| {area} | " + " | ".join(map(str, row)) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--suite", choices=SUITES, default="test", help="the last suite that survivors are shown to")
    parser.add_argument("-k", nargs="+", default=[""], metavar="PART", help="mistakes with this in id, area or file")
    parser.add_argument("--jobs", type=int, default=1, help="mistakes tried at a time")
    chosen = parser.parse_args(arguments)
    mistakes = [m for m in load() if any(part in f"{m.area} {m.id} {m.file}" for part in chosen.k)]
    suites = SUITES[: SUITES.index(chosen.suite) + 1]
    for name in LIBRARIES:
        importlib.import_module(name)
    os.environ.setdefault("DETRBENCH_SHARED", str(ROOT.parent / "shared"))
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # as an interrupt: tidies up
    with tempfile.TemporaryDirectory(prefix="mistakes-") as folder:
        place = Path(folder).resolve()
        copies = [Copy.at(place / f"copy-{number}") for number in range(min(chosen.jobs, len(mistakes)))]
        for suite in suites:
            log = place / f"{suite}.log"
            if copies[0].run(arguments_of(suite, mistakes), log) not in (0, 5):
                print(log.read_text(encoding="utf-8", errors="replace")[-4000:])
                print(f"{suite}: fails without any mistake, at {failed_test(log)}")
                return 2
        for copy in copies[1:]:
            copy.run([*arguments_of("selected", mistakes), "--collect-only"], place / "bytecode.log")
        tried = []
        for each in try_all(mistakes, suites, copies, place):
            tried.append(each)
            word = f"noticed by {each.noticed_by}" if each.noticed_by else "SURVIVED"
            print(f"{word:<20} {each.seconds:6.1f} s  {each.mistake.id}: {each.test or each.mistake.means}", flush=True)
    left = [each for each in tried if each.noticed_by is None]
    print(f"\n{table(tried, suites)}\n")
    for each in left:
        print(f"{each.mistake.id} ({each.mistake.file}): {each.mistake.equivalent or each.mistake.means}")
    return int(any(each.mistake.equivalent is None for each in left))


if __name__ == "__main__":
    sys.exit(main())
