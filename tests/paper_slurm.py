"""A Slurm on paper: `sbatch`, `squeue` and the others as scripts that keep a list; jobs are played in this process."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

SCRIPTS = {
    "sbatch": """\
test -e {folder}/refuses && cat {folder}/refuses >&2 && exit 1
number=$(($(cat {folder}/count) + 1)); echo $number > {folder}/count
cp "$1" {folder}/$number.sh
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")
if [ -n "$last" ]; then
  for task in $(seq 0 $last); do echo "${{number}}_$task|PENDING||Priority" >> {folder}/queue; done
else
  echo "$number|PENDING||Priority" >> {folder}/queue
fi
echo "Submitted batch job $number"
""",
    "squeue": 'test -e {folder}/down && exit 1\necho "$@" > {folder}/asked\ncat {folder}/queue\n',
    "scancel": 'for job; do sed -i "/^$job|/d" {folder}/queue; echo $job >> {folder}/cancelled; done\n',
    "srun": "exit 1\n",
}


class Killed(BaseException):
    """In place of SIGKILL: nothing can be tidied."""


@dataclass
class PaperSlurm:
    """The list, and how it goes on.

    Attributes:
        folder: of list and scripts.
        jobs: the folder that the jobs' own files are in.
        turn: what happens while the command under test sleeps; runs a job that need not wait, if not set otherwise.
    """

    folder: Path
    jobs: Path
    turn: Callable[[], Any] = lambda: None
    ended: dict[str, bool] = field(default_factory=dict)
    idle: int = 0

    def install(self, patch: pytest.MonkeyPatch) -> None:
        from detrbench.run.executors import slurm

        self.folder.mkdir()
        for name, script in SCRIPTS.items():
            (self.folder / name).write_text("#!/bin/bash\n" + script.format(folder=self.folder))
            (self.folder / name).chmod(0o755)
        (self.folder / "count").write_text("0\n")
        (self.folder / "queue").touch()
        self.turn = self.run_next
        patch.setenv("PATH", f"{self.folder}:{os.environ['PATH']}")
        patch.setattr(slurm, "GRACE", 0.0)
        patch.setattr(slurm, "time", SimpleNamespace(sleep=lambda _: self.turn(), monotonic=time.monotonic))

    @property
    def queue(self) -> dict[str, list[str]]:
        """State, nodes and reason by job."""
        lines = (line.split("|") for line in (self.folder / "queue").read_text().splitlines())
        return {job: rest for job, *rest in lines}

    def script(self, number: int) -> str:
        """What was submitted as the job of that number."""
        return (self.folder / f"{number}.sh").read_text()

    @property
    def submitted(self) -> int:
        return int((self.folder / "count").read_text())

    @property
    def cancelled(self) -> list[str]:
        file = self.folder / "cancelled"
        return file.read_text().split() if file.exists() else []

    def run_next(self) -> None:
        """Runs the first job that waits for nothing; notes of others that they wait in vain."""
        for job in self.queue:
            waits = re.findall(r"afterok:(\w+)", self._dependency(job))
            if any(self.ended.get(need) is False for need in waits):
                self._list(job, "PENDING", "DependencyNeverSatisfied")
            elif all(self.ended.get(need) for need in waits):
                return self.run(job)
        self.idle += 1
        assert self.idle < 20, f"nothing moves: {self.queue}"
        return None

    def _dependency(self, job: str) -> str:
        found = re.search(r"--dependency=(\S+)", self.script(int(job.partition("_")[0])))
        return found[1] if found else ""

    def run(self, job: str) -> None:
        """Plays a job in this process, as one task of one node."""
        from submitit.core.utils import DelayedSubmission

        file = self.jobs / f"{job}_submitted.pkl"
        delayed = DelayedSubmission.load(file)
        array, _, task = job.partition("_")
        names = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": array, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
        names |= {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": task} if task else {}
        before = signal.getsignal(signal.SIGTERM)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in names.items():
                patch.setenv(name, value)
            try:
                delayed.result()
            except SystemExit:  # as submitit ends it when it has been requeued
                delayed.function.checkpoint().dump(file)
                return self._list(job, "PENDING", "BeginTime")
            except BaseException:
                self.end(job, well=False)
            else:
                self.end(job)
            finally:
                signal.signal(signal.SIGTERM, before)
        return None

    def end(self, job: str, well: bool = True) -> None:
        """Takes a job off the list."""
        self.ended[job] = well
        self._list(job)

    def _list(self, job: str, *entry: str) -> None:
        queue = self.queue
        queue.pop(job, None)
        if entry:
            queue[job] = [entry[0], "", entry[1]]
        lines = ["|".join((name, *rest)) for name, rest in queue.items()]
        (self.folder / "queue").write_text("".join(line + "\n" for line in lines))
