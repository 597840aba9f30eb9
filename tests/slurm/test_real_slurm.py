"""A real Slurm on this machine: jobs that are killed and pre-empted leave what an undisturbed local run leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from detrbench.results import locks
from detrbench.results.folder import CellFolder
from detrbench.run.executors.queue import Note, told_of

pytestmark = pytest.mark.slurm

CLUSTER = Path(__file__).with_name("cluster")
DAEMONS = ("munged", "slurmctld", "slurmd")
SUITE = """\
name: demo
title: A demonstration
defaults: {backbone: tiny}
variants:
  - {id: plain, model: deformable_detr_tiny}
  - {id: sparse, model: sparse_detr_tiny}
  - {id: noised, model: dn_deformable_detr_tiny}
  - {id: sparser, model: sparse_detr_tiny, options: {keep_ratio: 0.05}, weights_of: sparse}
scales:
  smoke:
    {data: shapes, num_train: 16, num_val: 4, image_size: 64, epochs: 12, batch_size: 4, micro_batch: 2,
     checkpoint_every_steps: 1,
     model: {hidden_dim: 64, num_heads: 2, ffn_dim: 32, num_queries: 10, num_encoder_layers: 1, num_decoder_layers: 1}}
measure: [complexity, accuracy, memory]
"""
# As `detrbench`, but it looks more often: a cluster of one machine has nobody to spare.
QUICK = """
import sys
from detrbench import cli
from detrbench.run.executors import slurm
slurm.POLL, slurm.GRACE = 1.0, 5.0
sys.exit(cli.main())
"""
SLURM = ("--executor", "slurm", "--slurm", "time=60,partition=main")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    os.environ["PATH"] += ":/usr/sbin"
    missing = [name for name in DAEMONS if shutil.which(name) is None]
    if missing or os.getuid():
        pytest.skip(f"no Slurm here: {CLUSTER} says how there is one ({', '.join(missing) or 'not root'})")
    folder = tmp_path_factory.mktemp("cluster")
    try:
        subprocess.run([CLUSTER, "start", folder], check=True, timeout=120)
        os.environ |= {"SLURM_CONF": str(folder / "slurm.conf"), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        yield
    finally:
        subprocess.run([CLUSTER, "stop", folder], check=True, timeout=120)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "demo.yaml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def started(*arguments: str) -> Any:
    """A command in a process of its own."""
    command = [sys.executable, "-c", QUICK, "run", "demo.yaml", "--device", "cpu", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(process: Any) -> tuple[int, str]:
    output, _ = process.communicate(timeout=900)
    return process.returncode, output


def wait_for(holds: Callable[[], Any], seconds: float = 300.0) -> Any:
    """What a function gives as soon as that is something."""
    until = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


def cell(results: Path, name: str) -> CellFolder | None:
    """The folder of a cell, as soon as there is one."""
    return next((CellFolder(path) for path in results.glob(f"demo/smoke/cells/{name}-*")), None)


def in_training(results: Path, name: str) -> locks.Owner | None:
    """Who trains a cell, once a state has been kept."""
    folder = cell(results, name)
    return locks.owner(folder.path) if folder and list(folder.checkpoint.glob("*.pt")) else None


def note(results: Path, name: str) -> Note:
    (path,) = results.glob(f"demo/smoke/jobs/{name}-*.json")
    found = Note.read(path)
    assert found is not None
    return found


def figures(results: Path, name: str) -> dict[str, Any]:
    """Records of a cell, without what was timed and how long anything took."""
    folder = cell(results, name)
    assert folder is not None
    found = {}
    for measure in ("complexity", "training", "accuracy"):
        envelope = folder.read_envelope(measure)
        found[measure] = envelope and json.loads(json.dumps(envelope["records"]))
    if found["training"]:
        del found["training"]["training"]["seconds"]
        for epoch in found["training"]["training"]["epochs"]:
            del epoch["seconds"]
    return found


def assert_same(one: Path, other: Path, *names: str) -> None:
    for name in names:
        assert figures(one, name) == figures(other, name)
        first, second = cell(one, name), cell(other, name)
        assert first is not None
        assert second is not None
        if first.weights.exists() or second.weights.exists():
            ours, theirs = load_file(first.weights), load_file(second.weights)
            assert all(torch.equal(ours[tensor], theirs[tensor]) for tensor in ours)


def test_a_killed_and_a_preempted_job_end_with_the_bits_of_an_undisturbed_run(cluster: None, here: Path) -> None:
    ours, theirs = here / "slurm", here / "local"
    run = started(*SLURM, "--results", str(ours))
    victim = wait_for(lambda: in_training(ours, "sparse"))
    killed = note(ours, "sparse")
    os.kill(victim.process, signal.SIGKILL)
    wait_for(lambda: in_training(ours, "noised"))
    preempted = note(ours, "noised")
    subprocess.run(["scancel", "--signal=USR2", preempted.job], check=True)
    code, said = finished(run)
    assert code == 0, said
    assert note(ours, "sparse").job != killed.job  # submitted again
    assert note(ours, "noised").job == preempted.job  # requeued
    assert told_of(preempted.path).read_text().count('"begin"') == 2
    assert (victim.job, cell(ours, "sparser") is not None) == (killed.job, True)
    code, said = finished(started("--results", str(theirs)))
    assert code == 0, said
    assert_same(ours, theirs, "plain", "sparse", "noised", "sparser")
    before = note(ours, "plain").job
    code, said = finished(started(*SLURM, "--results", str(ours)))
    assert code == 0, said
    assert "0 to do" in said
    assert note(ours, "plain").job == before
    for name in ("plain", "sparse", "noised", "sparser"):
        folder = cell(ours, name)
        assert folder is not None
        assert folder.record("memory").exists()
        assert locks.owner(folder.path) is None


def test_an_interrupted_command_finds_its_jobs_again(cluster: None, here: Path) -> None:
    results = here / "results"
    arguments = (*SLURM, "--results", str(results), "-k", "plain", "--measure", "accuracy")
    first = started(*arguments)
    wait_for(lambda: in_training(results, "plain"))
    job = note(results, "plain").job
    first.send_signal(signal.SIGINT)
    code, said = finished(first)
    assert code == 130
    assert "the jobs go on" in said
    status = subprocess.run(
        [sys.executable, "-m", "detrbench", "status", str(results)], capture_output=True, text=True, check=True
    )
    assert f"job {job}" in status.stdout
    code, said = finished(started(*arguments))
    assert code == 0, said
    assert note(results, "plain").job == job


def test_two_nodes_train_one_cell_and_are_preempted(cluster: None, here: Path) -> None:
    ours, theirs = here / "slurm", here / "local"
    arguments = ("-k", "noised", "--measure", "accuracy")
    two = ("--executor", "slurm", "--slurm", "time=60,nodes=2", "--gpus", "2")
    run = started(*arguments, *two, "--results", str(ours))
    wait_for(lambda: in_training(ours, "noised"))
    job = note(ours, "noised")
    subprocess.run(["scancel", "--signal=USR2", job.job], check=True)
    code, said = finished(run)
    assert code == 0, said
    assert note(ours, "noised").job == job.job  # requeued
    assert told_of(job.path).read_text().count('"begin"') == 2
    log = next(ours.glob("demo/smoke/jobs/*_1_log.out")).read_text()
    assert "node=1(2)" in log  # rank 1 was on the other one
    code, said = finished(started(*arguments, "--results", str(theirs)))
    assert code == 0, said
    assert_same(ours, theirs, "noised")
