"""Another Python interpreter, and a worker that runs there and answers questions. Imports no torch.

The worker (`detrbench/worker`) answers one question at a time on a pipe. One that ends, or does not answer in time, is
killed; whoever asked gets `WorkerFailed`, with the last lines that it printed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import subprocess
import tempfile
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import detrbench.worker
from detrbench.errors import Findings, UsageError
from detrbench.worker import messages

_FOLDER = Path(detrbench.worker.__file__).parent
_LOOK = 1.0  # seconds between looks whether a silent worker is still there
_PRINTED = 4096  # bytes of what it printed last that are kept
# On whose versions figures may depend, whatever is built.
_PACKAGES = ("torch", "torchvision", "transformers", "timm", "mmcv", "mmdet", "mmengine", "detectron2")


class WorkerFailed(Findings):
    """A worker ended, did not answer in time, or said why it cannot. `details` is for the log: what it printed."""

    details: str = ""


class Worker:
    """A process of another interpreter, which ends with this object at the latest.

    Args:
        python: that interpreter.
        patience: seconds that it has for each answer; None: as many as it takes.

    Raises:
        UsageError: there is no such interpreter.
    """

    def __init__(self, python: str, patience: float | None = None) -> None:
        self.python, self.patience = python, patience
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        asked, ask = os.pipe()
        self._answers, answer = os.pipe()
        self._questions = os.fdopen(ask, "wb")
        try:
            self._process = subprocess.Popen(
                [python, "-u", str(_FOLDER), str(asked), str(answer)],  # -u: what a killed one printed is there
                stdin=subprocess.DEVNULL,
                stdout=self._printed,
                stderr=subprocess.STDOUT,
                pass_fds=(asked, answer),
                start_new_session=True,
            )
        except OSError as error:
            os.close(self._answers)
            hint = "name the interpreter of the other environment: /envs/x/bin/python"
            raise UsageError(f"python: {python}: {error.strerror}", hint) from error
        finally:
            os.close(asked)
            os.close(answer)
        self._arrived = select.poll()
        self._arrived.register(self._answers, select.POLLIN)
        self.end = weakref.finalize(self, _end, self._process, self._questions, self._answers)

    def ask(self, what: str, *blobs: bytes, **arguments: Any) -> Any:
        """Its answer to one question.

        Raises:
            WorkerFailed: it has ended, has not answered in time, or says why it cannot.
        """
        if not self.end.alive:
            raise self._failed("was ended before")
        try:
            with contextlib.suppress(BrokenPipeError):  # it has ended, and reading shows how
                messages.write(self._questions, {"ask": what, "with": arguments}, blobs)
            deadline = None if self.patience is None else time.monotonic() + self.patience
            answer, _ = messages.read(functools.partial(self._exactly, deadline))
        except EOFError:
            raise self._failed(f"ended ({self._ending()})") from None
        except BaseException:  # a time limit, Ctrl-C: a late answer would be taken for that to the next question
            self.end()
            raise
        if "error" in answer:
            raise self._failed(answer["error"], answer["trace"])
        return answer["said"]

    def _exactly(self, deadline: float | None, number: int) -> bytes:
        """So many bytes of its answer. Raises EOFError where it has ended, WorkerFailed at the deadline."""
        found = bytearray()
        while len(found) < number:
            left = _LOOK if deadline is None else min(_LOOK, deadline - time.monotonic())
            if left <= 0:
                raise self._failed(f"did not answer within {(self.patience or 0) / 60:g} minutes")
            # What it started may hold the pipe open when it has ended itself.
            ended = self._process.poll() is not None
            if self._arrived.poll(0 if ended else 1000 * left):
                read = os.read(self._answers, min(number - len(found), 1 << 20))
                found += read
                ended = not read
            if ended:
                raise EOFError
        return bytes(found)

    def _ending(self) -> str:
        self._process.wait()
        code = self._process.returncode
        if code == -signal.SIGKILL:
            return "killed: out of memory?"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _failed(self, why: str, trace: str = "") -> WorkerFailed:
        error = WorkerFailed(f"{self.python}: {why}", hint="its last lines are in the cell's log.txt")
        self._printed.seek(max(0, self._printed.seek(0, os.SEEK_END) - _PRINTED))
        printed = self._printed.read().decode(errors="replace")
        error.details = f"{trace}{self.python} printed last:\n{printed or '(nothing)'}"
        return error


def _end(process: subprocess.Popen[bytes], questions: IO[bytes], answers: int) -> None:
    """Kills a worker with all that it started."""
    if process.poll() is None:  # else its number may be another's by now
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    os.close(answers)
    with contextlib.suppress(BrokenPipeError):
        questions.close()


@functools.cache
def describe(python: str, package: str) -> Mapping[str, Any]:
    """What figures of a detector depend on there: versions of Python, PyTorch and of the package that builds it, and a
    hash of that package's sources.

    Raises:
        UsageError: there is no such interpreter, or no such package in it.
    """
    try:
        return Worker(python, 60.0).ask("describe", packages=[*_PACKAGES, package], module=package)
    except WorkerFailed as error:
        raise UsageError(error.message) from error
