"""The training loop. Kill it anywhere and start it again: it ends with the very weights it would have had.

All randomness is a function of (seed, epoch, step, micro-batch), so nothing random has to be saved; what is saved,
whole or not at all, is the weights, the optimiser, and where in which epoch they are.
"""

from __future__ import annotations

import pickle
import time
import zipfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detrbench import models
from detrbench.data.loading import Batch, num_batches, steps
from detrbench.data.order import Order
from detrbench.data.samples import Dataset, class_names
from detrbench.data.seeding import derive_seed
from detrbench.data.transforms import Transform
from detrbench.errors import Diverged
from detrbench.files import Unwritable, replacing, share
from detrbench.models.checkpoints.fitting import not_finite
from detrbench.models.detector import Detector
from detrbench.results.records import TrainingHistory
from detrbench.training import optimiser
from detrbench.training.recipe import Recipe
from detrbench.training.step import train_step

STATES = ("state.pt", "state-before.pt")  # what a killed run goes on from, and the one before it
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class TrainProgress:
    """Where training is: epochs and steps done of how many, the running loss, seconds this process took."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    seconds: float


@dataclass
class _State:
    """What a killed run goes on from."""

    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    images_seen: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    epochs: list[dict[str, Any]] = field(default_factory=list)


def train(
    detector: Detector,
    dataset: Dataset,
    transform: Transform,
    recipe: Recipe,
    folder: Path,
    evaluate: Callable[[Detector], dict[str, float | None]] | None = None,
    progress: Callable[[TrainProgress], None] = lambda _: None,
    device: str = "cpu",
    notice: Callable[[str], None] = lambda _: None,
) -> TrainingHistory:
    """Train, or go on training, and leave `model.safetensors` in `folder`.

    The state stays beside it: whoever has recorded the history may remove it, and until then nothing is done twice.

    Args:
        detector: with the weights to start from.
        dataset: training images.
        transform: of each image.
        recipe: how.
        folder: holds the state of an unfinished run; created.
        evaluate: gives figures such as {"AP": ..., "AP50": ...} for the history, every `recipe.eval_every_epochs`.
        progress: called after each step.
        device: where to train.
        notice: is told where a kept state is damaged.

    Raises:
        Diverged: training diverged; says at which step.
        Unwritable: the disk is full.
    """
    steps_of_epoch = recipe.iterations_per_epoch or num_batches(dataset, recipe.batch_size)
    training = _Training(detector.to(device), recipe, folder / STATES[0], device, steps_of_epoch)
    training.restore(notice)
    state, best = training.state, training.average or detector
    while state.epoch < recipe.epochs:
        training.run_epoch(dataset, transform, progress)
        entry = _finish_epoch(state, steps_of_epoch, training.optim)
        last = state.epoch == recipe.epochs
        if evaluate and recipe.eval_every_epochs and (last or state.epoch % recipe.eval_every_epochs == 0):
            entry |= evaluate(best.eval())
        training.save()
    names = list(class_names(dataset).values())
    if training.average is not None:
        detector.load_state_dict(training.average.state_dict())
    models.save_checkpoint(best, folder / WEIGHTS, {"source": "trained by detrbench"}, names)
    return TrainingHistory(asdict(recipe), state.epochs, state.seconds, state.images_seen)


class _Training:
    """What training changes: the weights, their average, the optimiser, and how far it has come.

    Args:
        detector: on `device`.
        recipe: how to train.
        file: holds the state of an unfinished run.
        device: where to train.
        steps: optimiser steps in an epoch.
    """

    def __init__(self, detector: Detector, recipe: Recipe, file: Path, device: str, steps: int) -> None:
        self.detector, self.recipe, self.file, self.device, self.steps = detector, recipe, file, device, steps
        self.before = file.with_name(STATES[1])
        self.optim = optimiser.build(detector, recipe)
        self.average = _average(detector) if recipe.ema else None
        self.state = _State()

    def run_epoch(self, dataset: Dataset, transform: Transform, progress: Callable[[TrainProgress], None]) -> None:
        """Trains to the end of the epoch that the state is in."""
        recipe, state, steps_of_epoch = self.recipe, self.state, self.steps
        self.detector.train()
        began = time.monotonic() - state.seconds
        micro_batch = recipe.images_at_once
        grouped = micro_batch if recipe.aspect_ratio_grouping else None
        order = Order(recipe.batch_size, recipe.seed, recipe.iterations_per_epoch, grouped)
        for batches in steps(dataset, transform, order, micro_batch, state.epoch, start_batch=state.batch):
            step = state.epoch * steps_of_epoch + state.batch
            losses = self._step(batches, step)
            state.batch += 1
            state.images_seen += sum(len(batch.images) for batch in batches)
            state.seconds = time.monotonic() - began
            for name, value in losses.items():
                state.sums[name] = state.sums.get(name, 0.0) + value
            done, total = step + 1, steps_of_epoch * recipe.epochs
            progress(TrainProgress(state.epoch, recipe.epochs, done, total, losses["total"], state.seconds))
            every = recipe.checkpoint_every_steps
            if every and state.batch % every == 0 and state.batch < steps_of_epoch:
                self.save()

    def _step(self, batches: list[Batch], step: int) -> dict[str, float]:
        recipe = self.recipe
        factor = optimiser.schedule(recipe, step, self.steps)
        # Dropout and noise of this step, whatever was drawn before it.
        seed = derive_seed("step", recipe.seed, step)
        losses = train_step(self.detector, self.optim, batches, recipe.clip_norm, factor, seed)
        if self.average is not None:
            _update_average(self.average, self.detector, recipe.ema, step)
        return losses

    def save(self) -> None:
        """Keeps the state, whole or not at all, and the one before it.

        Raises:
            Diverged: a weight or its average is not finite; the state on disk is the last good one.
            Unwritable: the disk is full.
        """
        _check_finite(self.detector, "weights")
        if self.average is not None:
            _check_finite(self.average, "the moving average")
        if self.file.is_file():
            share(self.file, self.before)
        content = {
            "detector": self.detector.state_dict(),
            "optimiser": self.optim.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "state": asdict(self.state),
        }
        try:
            with replacing(self.file) as temporary:
                torch.save(content, temporary)
        except RuntimeError as error:  # how torch tells of a full disk
            raise Unwritable(f"{self.file}: cannot be written: {error}", "free some disk space") from error

    def restore(self, notice: Callable[[str], None]) -> None:
        """Goes on from the state that was kept, or where that is damaged, from the one before it."""
        kept = (_read_state(file, notice) for file in (self.file, self.before))
        content = next((found for found in kept if found is not None), None)
        if content is None:
            return
        self.detector.load_state_dict(content["detector"])
        self.optim.load_state_dict(content["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(content["average"])
        self.state = _State(**content["state"])


def _read_state(file: Path, notice: Callable[[str], None]) -> dict[str, Any] | None:
    """What was kept, or None where nothing was or where it cannot be trusted, which is said."""
    if not file.is_file():
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()  # torch.load does not compare checksums
        if damaged is None:
            content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            return content
    except (OSError, RuntimeError, ValueError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        damaged = str(error).splitlines()[0]
    notice(f"{file}: damaged ({damaged}): training goes on from the state before it, or anew")
    return None


def _check_finite(detector: nn.Module, what: str) -> None:
    broken = not_finite(detector.state_dict())
    if broken:
        raise Diverged(f"training diverged: {what} ({broken[0]}) are not finite", "lower lr, or raise warmup_steps")


def _finish_epoch(state: _State, steps: int, optim: torch.optim.Optimizer) -> dict[str, Any]:
    means = {name: value / steps for name, value in state.sums.items()}
    state.epoch, state.batch, state.sums = state.epoch + 1, 0, {}
    entry: dict[str, Any] = {
        "epoch": state.epoch,
        "loss": means.pop("total"),
        "losses": means,
        "lr": max(group["lr"] for group in optim.param_groups),
        "seconds": state.seconds,
    }
    state.epochs.append(entry)
    return entry


def _average(detector: Detector) -> Detector:
    return deepcopy(detector).eval().requires_grad_(False)


@torch.no_grad()
def _update_average(average: Detector, detector: Detector, decay: float, step: int) -> None:
    # A short memory at the start, so that the random weights are soon forgotten.
    decay = min(decay, (1 + step) / (10 + step))
    for mean, value in zip(average.state_dict().values(), detector.state_dict().values()):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)
