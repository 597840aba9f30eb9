"""Building detectors from elsewhere: by a user's function, with seeded weights or a file's, and what goes wrong."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from torch import nn

from detrbench.errors import CheckpointError, UsageError
from detrbench.external import loading, sources
from detrbench.measure import complexity, protocols

GRID = sources.parse("factory:some_factories:grid")


def test_a_factory_gets_the_options_and_a_seed() -> None:
    one, same, other = (loading.load(GRID, {"classes": 5}, seed) for seed in (1, 1, 2))
    weights = [each.module.heads[0].weight for each in (one, same, other)]
    assert weights[0].shape[0] == 5
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not one.training


def test_a_module_alone_is_a_detector() -> None:
    made = loading.load(sources.parse("factory:some_factories:module"), {})
    assert isinstance(made.module, nn.Module)
    assert made.external.detections is None


def test_what_reads_values_when_it_is_built_is_built_with_values_and_counted() -> None:
    build = functools.partial(loading.load, sources.parse("factory:some_factories:needs_values"), {})
    found = complexity.measure(build, protocols.get("complexity").at(64, 64))
    assert found.gflops == pytest.approx(8 * 8 * 4 * (3 * 8 * 8 + 1) / 1e9)
    assert found.convention.endswith("as noise and seeded random weights make it")


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        ("number", {}, "some_factories:number: expected an ExternalDetector or a torch.nn.Module, got int"),
        ("nothing", {}, "some_factories has no function 'nothing'"),
        ("broken", {}, "some_factories:broken: cannot be built: OSError: no weights$"),
        ("grid", {"sides": 3}, "some_factories:grid: cannot be built: TypeError"),
    ],
)
def test_what_cannot_be_built_is_told_in_one_line(function: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        loading.load(sources.parse(f"factory:some_factories:{function}"), options)
    assert "\n" not in caught.value.message


def test_a_file_fills_it(tmp_path: Path) -> None:
    made = loading.load(GRID, {}, seed=1)
    torch.save(made.module.state_dict(), tmp_path / "w.pth")
    filled = loading.load(GRID, {}, 2, tmp_path / "w.pth")
    assert torch.equal(filled.module.heads[0].weight, made.module.heads[0].weight)
    with pytest.raises(CheckpointError, match="weights of another module"):
        loading.load(GRID, {"classes": 9}, 2, tmp_path / "w.pth")
