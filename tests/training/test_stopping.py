"""A signal ends a training behind the step in hand, whose state is kept; gone on with, it ends as if undisturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from families import small
from safetensors.torch import load_file

from detrbench.data import DataSpec, open_dataset
from detrbench.data.transforms import Train
from detrbench.training import loop
from detrbench.training.checkpoint import STATES
from detrbench.training.recipe import Recipe
from detrbench.training.stopping import SIGNALS

RECIPE = Recipe(epochs=2, batch_size=4, lr=1e-3, lr_backbone=1e-3)
SUITE = """\
name: demo
title: A demonstration
defaults: {backbone: tiny}
variants: [{id: one, model: deformable_detr_tiny}]
scales:
  smoke:
    {data: shapes, num_train: 400, num_val: 2, image_size: 64, epochs: 2, batch_size: 2, eval_every_epochs: 0,
     model: {hidden_dim: 64, num_heads: 2, ffn_dim: 32, num_queries: 10, num_encoder_layers: 1, num_decoder_layers: 1}}
measure: [accuracy]
"""


class Ended(Exception):
    """What this process does about a signal, when it may."""


@pytest.fixture(params=SIGNALS)
def number(request: pytest.FixtureRequest) -> Iterator[int]:
    def end(number: int, frame: object) -> None:
        raise Ended

    before = signal.signal(request.param, end)
    yield request.param
    signal.signal(request.param, before)


def train(folder: Path, **more: Any) -> Any:
    dataset = open_dataset(DataSpec(kind="shapes", num_train=10, num_val=2, image_size=64), "train")
    transform = Train(scales=(48, 64), longest=64, crop=False)
    return loop.train(small("dn_deformable_detr", 12), dataset, transform, RECIPE, folder, **more)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """History and folder of a training that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return train(folder), folder


def test_a_signal_is_heeded_behind_the_step_in_hand(tmp_path: Path, number: int, undisturbed: tuple[Any, Path]) -> None:
    seen: list[int] = []

    def progress(at: loop.TrainProgress) -> None:
        seen.append(at.step)
        if at.step == 2:
            os.kill(os.getpid(), number)

    with pytest.raises(Ended):
        train(tmp_path / "stopped", progress=progress)
    state = torch.load(tmp_path / "stopped" / STATES[0], weights_only=True)["state"]
    assert (state["epoch"], state["batch"], seen) == (0, 2, [1, 2])
    history = train(tmp_path / "stopped", num_workers=1)
    found, expected = (load_file(folder / loop.WEIGHTS) for folder in (tmp_path / "stopped", undisturbed[1]))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert [entry["losses"] for entry in history.epochs] == [entry["losses"] for entry in undisturbed[0].epochs]
    assert signal.getsignal(number).__name__ == "end"  # type: ignore[union-attr]


def test_whoever_thinks_better_of_a_signal_trains_to_the_end(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        ask = lambda at: os.kill(os.getpid(), signal.SIGUSR2) if at.step == 2 else None  # noqa: E731
        history = train(tmp_path, progress=ask)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert [entry["epoch"] for entry in history.epochs] == [1, 2]
    assert history.images_seen == 20


@pytest.mark.full
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("gpus", ["1", "2"])
def test_the_command_ends_with_143_and_goes_on(tmp_path: Path, number: int, gpus: str) -> None:
    suite = tmp_path / "demo.yaml"
    suite.write_text(SUITE)
    options = ["--set", "micro_batch=1", "--device", "cpu", "--gpus", gpus, "--results", str(tmp_path / "results")]
    command = [sys.executable, "-m", "detrbench", "run", str(suite), *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    log = tmp_path / "results" / "demo" / "smoke" / "cells"
    while not any(path.stat().st_size for path in log.glob("*/log.jsonl")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said.splitlines()[-1]) == (143, "terminated; run the same command again to resume")
    (state,) = log.glob(f"*/checkpoint/{STATES[0]}")
    kept = torch.load(state, weights_only=True)["state"]
    assert (kept["epoch"], kept["batch"] >= 20) == (0, True)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "1/2, loss" in done.stdout
