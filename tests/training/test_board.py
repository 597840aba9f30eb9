"""What TensorBoard shows of a training is what its log says, each step once."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training.test_loop import RECIPE, train

from detrbench.errors import EnvironmentLacking
from detrbench.results.folder import read_lines
from detrbench.training import loop
from detrbench.training.board import Board


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps with values by tag."""
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_scalars_are_the_lines_of_the_log_and_forget_what_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "EVERY", 2)
    recipe = dataclasses.replace(RECIPE, checkpoint_every_steps=3, ema=0.0)
    log, board = tmp_path / "log.jsonl", tmp_path / "board"
    figures = iter([{"AP": 1.0, "AP50": None}, {"AP": 2.0}])
    given: dict[str, Any] = {"log": log, "board": board, "evaluate": lambda _: next(figures)}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "a", recipe, stop_after=5, **given)
    assert [step for step, _ in shown(board)["lr"]] == [2, 3, 4]
    train(tmp_path / "a", recipe, **given)
    lines, found = list(read_lines(log)), shown(board)
    assert found.pop("evaluation/AP") == [(3, 1.0), (6, 2.0)]
    told = {name for line in lines for name in line} - {"step", "epoch"}
    assert set(found) == {f"loss/{name}" if "loss" in name or name == "total" else name for name in told}
    for tag, values in found.items():
        name = tag.removeprefix("loss/")
        assert [step for step, _ in values] == [line["step"] for line in lines if name in line]
        assert [value for _, value in values] == pytest.approx([line[name] for line in lines if name in line])


def test_nothing_is_written_where_nobody_asks(tmp_path: Path) -> None:
    board = Board(None, 0)
    board.add(1, {"lr": 1.0})
    board.close()
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_a_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentLacking, match=r"^--tensorboard needs the package tensorboard$") as caught:
        Board(tmp_path, 0)
    assert caught.value.hint == "pip install 'detrbench[tensorboard]'"
