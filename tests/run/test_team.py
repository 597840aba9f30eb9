"""`--gpus N`: several processes train and evaluate a cell together, with the figures of one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from listeners import Silent
from safetensors.torch import load_file

from detrbench import yaml12
from detrbench.cli import main
from detrbench.errors import EnvironmentLacking
from detrbench.ranks import RankLost
from detrbench.results.folder import CellFolder
from detrbench.run import execute as runs
from detrbench.run import team as teams
from detrbench.run.executors.local import Local
from detrbench.run.work import RunOptions
from detrbench.suite import loading as suites

SUITE = """\
name: demo
title: A demonstration
defaults: {backbone: tiny}
variants:
  - {id: noised, model: dn_deformable_detr_tiny}
  - {id: wrong, model: deformable_detr_tiny, options: {num_classes: 3}}
  - {id: sparse, model: sparse_detr_tiny}
scales:
  smoke:
    {data: shapes, num_train: 6, num_val: 5, image_size: 64, epochs: 1, batch_size: 4, micro_batch: 1,
     model: {hidden_dim: 64, num_heads: 2, ffn_dim: 32, num_queries: 10, num_encoder_layers: 1, num_decoder_layers: 1}}
measure: [accuracy, dam, queries]
"""

# The images of the first are shared; the others the first process takes alone, while its helpers wait.
EVALUATED = ("accuracy", "dam", "queries")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def prepare(root: Path, **options: Any) -> runs.PreparedRun:
    return runs.prepare(suites.read(yaml12.parse(SUITE, "demo.yaml")), RunOptions(results=root, **options))


def cell(root: Path, name: str) -> CellFolder:
    (path,) = (root / "demo" / "smoke" / "cells").glob(f"{name}-*")
    return CellFolder(path)


def records(root: Path, name: str, measure: str) -> dict[str, Any]:
    envelope = cell(root, name).read_envelope(measure)
    assert envelope is not None
    found: dict[str, Any] = envelope["records"]
    return found


def same(first: Path, second: Path, name: str) -> bool:
    """Whether weights, AP and history are equal, but for the time that they took."""
    one, other = (load_file(cell(root, name).weights) for root in (first, second))
    histories = [records(root, name, "training")["training"]["epochs"] for root in (first, second)]
    for epoch in (*histories[0], *histories[1]):
        del epoch["seconds"]
    return (
        all(torch.equal(one[tensor], other[tensor]) for tensor in one)
        and histories[0] == histories[1]
        and all(records(first, name, measure) == records(second, name, measure) for measure in EVALUATED)
        and cell(first, name).detections.read_bytes()[50:] == cell(second, name).detections.read_bytes()[50:]
    )


def test_two_processes_give_the_figures_of_one_and_go_on_after_a_cell_that_failed(tmp_path: Path) -> None:
    one, two = prepare(tmp_path / "one"), prepare(tmp_path / "two", gpus=2)
    alone = runs.execute(one, Silent())
    with teams.launched(2, "cpu") as team:
        together = runs.execute(two, Silent(), Local(team=team))
    for outcomes in (alone, together):
        assert [(o.item.cell.id, o.state) for o in outcomes if o.item.measure == "training"] == [
            ("noised", "done"),
            ("wrong", "failed"),
            ("sparse", "done"),
        ]
    whys = [{(o.item.cell.id, o.item.measure): o.why for o in outcomes} for outcomes in (alone, together)]
    assert whys[0] == whys[1]
    for name in ("noised", "sparse"):
        assert same(tmp_path / "one", tmp_path / "two", name)


@pytest.mark.full
def test_a_process_that_is_killed_ends_the_run_with_its_name(tmp_path: Path) -> None:
    prepared = prepare(tmp_path, gpus=2, expression="noised")
    with teams.launched(2, "cpu") as team, pytest.raises(RankLost) as caught:
        runs.execute(prepared, Silent(lambda item: team.helpers[0].kill()), Local(team=team))
    assert caught.value.message.startswith("process 1 of 2 ended with signal SIGKILL: ")
    assert caught.value.hint == "run the same command again: it goes on from the last checkpoint"
    assert cell(tmp_path, "noised").read_status()["measures"]["training"]["state"] == "not_measured"


def test_more_gpus_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(EnvironmentLacking, match="--gpus 3: there are 2"), teams.launched(3, "cuda"):
        pass


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--gpus", "3"), "3 processes cannot share 4 x 1 images equally"),
        (("--gpus", "2", "--jobs", "2"), "--jobs and --gpus: expected one of them"),
    ],
)
def test_numbers_that_do_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], line: str
) -> None:
    suite = tmp_path / "demo.yaml"
    suite.write_text(SUITE)
    assert main(["run", str(suite), "--results", str(tmp_path / "r"), "--device", "cpu", *options]) == 2
    assert line in capsys.readouterr().err


@pytest.mark.full
def test_processes_that_torchrun_started_find_each_other(tmp_path: Path) -> None:
    suite = tmp_path / "demo.yaml"
    suite.write_text(SUITE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "detrbench", "run", str(suite), "-k", "sparse", "--device", "cpu", "--json"]
    processes = [
        subprocess.Popen(
            [*command, "--results", str(tmp_path / "two")],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert [outcome["state"] for outcome in json.loads(said[0])["outcomes"]] == ["done"] * 4
    assert said[1] == b""
    runs.execute(prepare(tmp_path / "one", expression="sparse"), Silent())
    assert same(tmp_path / "one", tmp_path / "two", "sparse")
