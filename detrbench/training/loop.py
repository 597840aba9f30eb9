"""The training loop. Kill it anywhere and start it again: it ends with the very weights it would have had.

All randomness is a function of (seed, epoch, step, micro-batch), so nothing random has to be saved; what is saved,
whole or not at all, is the weights, the optimiser, and where in which epoch they are.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection, Generator, Iterator
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
from detrbench.models.checkpoints.fitting import not_finite
from detrbench.models.detector import Detector
from detrbench.ranks import ALONE, Ranks
from detrbench.results.records import TrainingHistory
from detrbench.training import optimiser
from detrbench.training.checkpoint import Checkpoint
from detrbench.training.execution import Precision, prepare, uncompiled
from detrbench.training.log import EVERY, Log
from detrbench.training.recipe import Recipe
from detrbench.training.step import Part, train_step
from detrbench.training.stopping import heeding

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
    skipped: list[int] = field(default_factory=list)
    taken: int = 0  # steps of this epoch that were not skipped


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
    ranks: Ranks = ALONE,
    num_workers: int = 0,
    log: Path | None = None,
    skip: Collection[int] = (),
    board: Path | None = None,
) -> TrainingHistory:
    """Train, or go on training, and leave `model.safetensors` in `folder`.

    The state stays beside it: whoever has recorded the history may remove it, and until then nothing is done twice.
    SIGTERM and SIGUSR2 end a training as they would anything, but after the step in hand, whose state is kept.

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
        ranks: the processes that train together, each on its own device; the first one alone writes.
        num_workers: processes that read images ahead; they change nothing but the speed.
        log: the file that gets a line every so many steps; see `training.log`.
        skip: steps, counted from 1, whose images are passed over.
        board: the folder that gets the same for TensorBoard.

    Raises:
        Diverged: training diverged; names the step, the term and the images.
        UsageError: the processes cannot share a step equally.
        Unwritable: the disk is full.
    """
    recipe.check_shared(ranks.size)
    steps_of_epoch = recipe.iterations_per_epoch or num_batches(dataset, recipe.batch_size)
    training = _Training(detector.to(device), recipe, folder, ranks, steps_of_epoch)
    training.restore(notice)
    state, best = training.state, training.average or detector
    log, board = (log, board) if ranks.rank == 0 else (None, None)
    written = Log(log, training.step, device, board)
    loading = contextlib.closing(training.read(dataset, transform, num_workers))
    with contextlib.closing(written.board), loading as loader:
        while state.epoch < recipe.epochs:
            training.run_epoch(loader, written, progress, skip)
            if state.batch < training.steps:
                continue  # asked to end, by somebody who thought better of it
            entry = training.finish_epoch()
            last = state.epoch == recipe.epochs
            if evaluate and recipe.eval_every_epochs and (last or state.epoch % recipe.eval_every_epochs == 0):
                with uncompiled(recipe):
                    figures = evaluate(best.eval())
                entry |= figures
                written.evaluated(training.step, figures)
            training.save()
    names = list(class_names(dataset).values())
    if training.average is not None:
        detector.load_state_dict(training.average.state_dict())
    source = {"source": "trained by detrbench"}
    ranks.from_first(lambda: models.save_checkpoint(best, folder / WEIGHTS, source, names))
    return TrainingHistory(asdict(recipe), state.epochs, state.seconds, state.images_seen, skipped=state.skipped)


class _Training:
    """What training changes: the weights, their average, the optimiser, and how far it has come.

    Args:
        detector: on its device.
        recipe: how to train.
        folder: holds the state of an unfinished run.
        ranks: the processes that train together.
        steps: optimiser steps in an epoch.
    """

    def __init__(self, detector: Detector, recipe: Recipe, folder: Path, ranks: Ranks, steps: int) -> None:
        self.detector, self.recipe, self.ranks, self.steps = detector, recipe, ranks, steps
        prepare(detector, recipe)
        self.checkpoint = Checkpoint(folder)
        self.optim = optimiser.build(detector, recipe)
        self.precision = Precision(recipe.precision, next(detector.parameters()).device)
        self.average = _average(detector) if recipe.ema else None
        self.state = _State()

    @property
    def step(self) -> int:
        """Steps done since the start."""
        return self.state.epoch * self.steps + self.state.batch

    def read(self, dataset: Dataset, transform: Transform, num_workers: int) -> Generator[list[Batch], None, None]:
        """The micro-batches of this process, step by step, from where the state is to the end."""
        recipe, state, micro_batch = self.recipe, self.state, self.recipe.images_at_once
        grouped = micro_batch if recipe.aspect_ratio_grouping else None
        return steps(
            dataset,
            transform,
            Order(recipe.batch_size, recipe.seed, recipe.iterations_per_epoch, grouped),
            micro_batch,
            epochs=range(state.epoch, recipe.epochs),
            start_batch=state.batch,
            part=(self.ranks.rank, self.ranks.size),
            num_workers=num_workers,
        )

    def run_epoch(
        self,
        loader: Iterator[list[Batch]],
        log: Log,
        progress: Callable[[TrainProgress], None],
        skip: Collection[int],
    ) -> None:
        """Trains to the end of the epoch that the state is in, or until a signal asks to end."""
        state, every = self.state, self.recipe.checkpoint_every_steps
        self.detector.train()
        began = time.monotonic() - state.seconds
        with heeding() as stop:
            while state.batch < self.steps:
                batches = self.ranks.together(lambda: next(loader))
                losses = self._skip() if self.step + 1 in skip else self._take(batches, log)
                state.batch += 1
                state.seconds = time.monotonic() - began
                if self.step % EVERY == 0 or state.batch == self.steps:
                    log.write(self.step, self.step / self.steps, self.rate, state.seconds, self.precision.figures())
                total = self.steps * self.recipe.epochs
                progress(TrainProgress(state.epoch, self.recipe.epochs, self.step, total, losses, state.seconds))
                wishes = self.ranks.share(lambda: (self.checkpoint.due, stop.asked is not None))
                end = any(asked for _, asked in wishes)
                due = wishes[0][0] or (every is not None and state.batch % every == 0)
                if end or (due and state.batch < self.steps):
                    self.save()
                if end:
                    return

    def _skip(self) -> float:
        self.state.skipped.append(self.step + 1)
        return math.nan

    def _take(self, batches: list[Batch], log: Log) -> float:
        """One step; returns its loss."""
        recipe, state = self.recipe, self.state
        factor = optimiser.schedule(recipe, self.step, self.steps)
        # Dropout and noise of this step, whatever was drawn before it.
        seed = derive_seed("step", recipe.seed, self.step)
        try:
            part = Part.of(batches, self.ranks)
            losses, norm = train_step(
                self.detector, self.optim, part, recipe.clip_norm, factor, seed, self.ranks, self.precision
            )
        except Diverged as error:
            log.append({"step": self.step + 1, "diverged": error.message, **error.batch})
            raise Diverged(
                f"{error.message}, step {self.step + 1}",
                f"{error.hint}; or go on without that step: --skip-batches {self.step + 1}",
            ) from error
        if self.average is not None:
            _update_average(self.average, self.detector, recipe, self.step)
        images = part.images
        state.images_seen += images
        state.taken += 1
        for name, value in losses.items():
            state.sums[name] = state.sums.get(name, 0.0) + value
        log.add(losses, norm, images)
        return losses["total"]

    @property
    def rate(self) -> float:
        """The highest learning rate of the step that was taken last."""
        return max(float(group["lr"]) for group in self.optim.param_groups)

    def finish_epoch(self) -> dict[str, Any]:
        """Enters the means of an epoch into the history, and begins the next one."""
        state = self.state
        means = {name: value / state.taken for name, value in state.sums.items()}
        state.epoch, state.batch, state.taken, state.sums = state.epoch + 1, 0, 0, {}
        entry: dict[str, Any] = {
            "epoch": state.epoch,
            "loss": means.pop("total", math.nan),
            "losses": means,
            "lr": self.rate,
            "seconds": state.seconds,
        }
        state.epochs.append(entry)
        return entry

    def save(self) -> None:
        """Keeps the state, whole or not at all, and the one before it.

        Raises:
            Diverged: a weight or its average is not finite, or none changes any more; the state on disk is the last
                good one.
            Unwritable: the disk is full.
        """
        self.precision.check()
        _check_finite(self.detector, "weights")
        if self.average is not None:
            _check_finite(self.average, "the moving average")
        self.ranks.from_first(
            lambda: self.checkpoint.write(
                {
                    "detector": self.detector.state_dict(),
                    "optimiser": self.optim.state_dict(),
                    "scaler": self.precision.scaler.state_dict(),
                    "average": self.average.state_dict() if self.average else None,
                    "state": asdict(self.state),
                }
            )
        )

    def restore(self, notice: Callable[[str], None]) -> None:
        """Goes on from the state that was kept, if there is one."""
        content = self.ranks.from_first(lambda: self.checkpoint.read(notice))
        if content is None:
            return
        self.detector.load_state_dict(content["detector"])
        self.optim.load_state_dict(content["optimiser"])
        self.precision.scaler.load_state_dict(content.get("scaler", {}))  # once there was float32 alone
        if self.average is not None:
            self.average.load_state_dict(content["average"])
        self.state = _State(**content["state"])


def _check_finite(detector: nn.Module, what: str) -> None:
    broken = not_finite(detector.state_dict())
    if broken:
        raise Diverged(f"training diverged: {what} ({broken[0]}) are not finite", "lower lr, or raise warmup_steps")


def _average(detector: Detector) -> Detector:
    return deepcopy(detector).eval().requires_grad_(False)


@torch.no_grad()
def _update_average(average: Detector, detector: Detector, recipe: Recipe, step: int) -> None:
    # A short memory at the start, so that the random weights are soon forgotten.
    if recipe.ema_warmup is None:
        decay = min(recipe.ema, (1 + step) / (10 + step))
    else:
        decay = recipe.ema * (1 - math.exp(-(step + 1) / recipe.ema_warmup))
    for mean, value in zip(average.state_dict().values(), detector.state_dict().values()):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)
