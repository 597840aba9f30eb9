"""Two processes that share the micro-batches of a step do what one does, bit by bit, killed and gone on with or not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, small
from safetensors.torch import load_file
from torch import Tensor
from training.test_execution import spoil
from training.test_step import QUICK, micro_batches, slow
from two_processes import Two, two

from detrbench.data import DataSpec, open_dataset
from detrbench.data.transforms import Train
from detrbench.errors import DataError, Diverged, UsageError
from detrbench.ranks import ALONE, RankLost, Ranks
from detrbench.training import loop, optimiser
from detrbench.training.execution import Precision
from detrbench.training.recipe import BF16, FP16, Recipe
from detrbench.training.step import Part, train_step

RECIPE = Recipe(
    epochs=2,
    batch_size=4,
    micro_batch=1,
    lr=1e-3,
    lr_backbone=1e-3,
    warmup_steps=2,
    checkpoint_every_steps=1,
    ema=0.9,
)


@pytest.fixture(scope="module")
def pair() -> Iterator[Two]:
    with two() as made:
        yield made


def shared_step(ranks: Ranks, family: str) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Loss terms and gradients of one step of 16 images in eight micro-batches."""
    torch.set_num_threads(1)
    batches = micro_batches(16, 2)
    mine = slice(ranks.rank * 8 // ranks.size, (ranks.rank + 1) * 8 // ranks.size)
    detector = small(family, 12).double().train()
    optim = torch.optim.SGD([{"params": list(detector.parameters()), "base_lr": 0.0}], lr=0.0)
    losses, _ = train_step(detector, optim, Part.of(batches[mine], ranks), 0.0, 1.0, seed=7, ranks=ranks)
    found = {name: p.grad for name, p in detector.named_parameters() if p.grad is not None}
    return losses, {**found, **dict(detector.named_buffers())}


@pytest.mark.parametrize("family", [slow(family) if family not in QUICK[:2] else family for family in FAMILIES])
def test_two_processes_of_four_micro_batches_are_one_of_eight(pair: Two, family: str) -> None:
    losses, tensors = shared_step(ALONE, family)
    assert any("_dn" in name for name in losses) == (small(family, 12).spec.parts["denoising"] != "none")
    for each in pair(shared_step, family):
        assert each[0] == losses
        assert set(each[1]) == set(tensors)
        assert [name for name, tensor in tensors.items() if not torch.equal(each[1][name], tensor)] == []


class Stopped(Exception):
    """What a test stops a training with."""


def train(ranks: Ranks, folder: Path, recipe: Recipe = RECIPE, stop_after: int | None = None) -> Any:
    """Two epochs of ten images: the last step of each has two micro-batches, both for the first process."""
    torch.set_num_threads(1)

    def progress(at: loop.TrainProgress) -> None:
        if at.step == stop_after:
            raise Stopped

    data = open_dataset(DataSpec(kind="shapes", num_train=10, num_val=2, image_size=64), "train")
    transform = Train(scales=(48, 64), longest=64, crop=False)
    return loop.train(small("dn_deformable_detr", 12), data, transform, recipe, folder, progress=progress, ranks=ranks)


def differing(first: Path, second: Path) -> list[str]:
    one, other = (load_file(folder / loop.WEIGHTS) for folder in (first, second))
    assert set(one) == set(other)
    return [name for name in one if not torch.equal(one[name], other[name])]


def test_a_training_of_two_processes_ends_with_the_weights_of_one(pair: Two, tmp_path: Path) -> None:
    alone = train(ALONE, tmp_path / "one")
    for history in pair(train, tmp_path / "two"):
        assert [entry["losses"] for entry in history.epochs] == [entry["losses"] for entry in alone.epochs]
        assert history.images_seen == 20
    assert differing(tmp_path / "one", tmp_path / "two") == []

    for stop in (2, 4):  # within an epoch, and within the next
        assert [type(error) for error in pair(train, tmp_path / "stopped", RECIPE, stop)] == [Stopped] * 2
    pair(train, tmp_path / "stopped")
    assert differing(tmp_path / "two", tmp_path / "stopped") == []


def spoilt_steps(ranks: Ranks, precision: str) -> Any:
    """Weights and, in fp16, the scale behind each of three steps.

    In the first one the last process has nothing to do. In the second its gradient overflows, in fp16.
    """
    torch.set_num_threads(1)
    detector, execution = small("sparse_detr", 12).train(), Precision(precision, torch.device("cpu"))
    if precision == FP16:
        execution.scaler.update(2.0**8)
    optim, batches = optimiser.build(detector, Recipe()), micro_batches(4, 1, torch.float32)
    found = []
    for number in range(3):
        mine = batches if ranks.size == 1 else batches[2 * ranks.rank :][:2]
        if number == 0:
            mine = batches[:2] if ranks.rank == 0 else []
        last = ranks.rank == ranks.size - 1
        spoilt = precision == FP16 and number == 1 and last and spoil(next(detector.decoder.parameters()))
        _, norm = train_step(detector, optim, Part.of(mine, ranks), 0.1, 1.0, 7, ranks, execution)
        if spoilt:
            spoilt.remove()
        weights = {name: parameter.detach().clone() for name, parameter in detector.named_parameters()}
        found.append((weights, float(norm), execution.figures()))
    return found


@pytest.mark.parametrize("precision", [FP16, pytest.param(BF16, marks=pytest.mark.full)])
def test_processes_in_half_precision_leave_out_the_same_steps_and_end_alike(pair: Two, precision: str) -> None:
    alone, (first, second) = spoilt_steps(ALONE, precision), pair(spoilt_steps, precision)
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(tensor, other[0][name]) for name, tensor in one[0].items())
        assert one[2] == other[2]
    for one, both in zip(alone, first, strict=True):  # bit by bit those of one process, too
        assert all(torch.equal(tensor, both[0][name]) for name, tensor in one[0].items())
    if precision == FP16:
        assert [figures["loss_scale"] for _, _, figures in first] == [256, 128, 128]
        assert [math.isfinite(norm) for _, norm, _ in first] == [True, False, True]
        assert all(torch.equal(tensor, first[1][0][name]) for name, tensor in first[0][0].items())


def test_processes_that_cannot_share_a_step_say_so(pair: Two, tmp_path: Path) -> None:
    for error in pair(train, tmp_path, Recipe(batch_size=4)):
        assert isinstance(error, UsageError)
        assert (error.message, error.hint) == (
            "2 processes cannot share 1 x 4 images equally",
            "--set micro_batch=2",
        )


# ------------------------------------------------------------------------------------------------- failing together


def broken_in_the_second(ranks: Ranks, error: Exception) -> None:
    def work() -> None:
        if ranks.rank == 1:
            raise error

    ranks.share(lambda: None)
    ranks.share(work)


@pytest.mark.parametrize(
    "error", [DataError("a.jpg: broken", "mend it"), Diverged("loss_ce is not finite"), ZeroDivisionError("by 0")]
)
def test_what_fails_in_one_fails_in_both_alike(pair: Two, error: Exception) -> None:
    for found in pair(broken_in_the_second, error):
        assert type(found) is type(error)
        assert (str(found), getattr(found, "hint", None)) == (str(error), getattr(error, "hint", None))


def fails_by_itself(ranks: Ranks) -> None:
    def work() -> None:
        if ranks.rank == 1:
            raise DataError("nobody expects me")
        ranks.share(lambda: None)

    ranks.alike(work)


def test_one_that_fails_outside_of_what_is_shared_keeps_nobody_waiting(pair: Two) -> None:
    assert [str(error) for error in pair(fails_by_itself)] == ["nobody expects me"] * 2
    assert pair(first_alone, 5) == [5, 5]  # and both still meet


def first_alone(ranks: Ranks, value: int) -> int:
    def work() -> int:
        assert ranks.rank == 0
        return value

    return ranks.from_first(work)


@pytest.mark.full
def test_one_that_is_killed_ends_the_other(tmp_path: Path) -> None:
    with two() as pair:
        assert pair(first_alone, 5) == [5, 5]
        pair.pipes[0].send((train, (tmp_path,)))
        pair.processes[1].kill()
        error = pair.pipes[0].recv()
    assert isinstance(error, RankLost)
    assert error.exit_code == 4
    assert "has ended, killed or out of memory" in error.message
