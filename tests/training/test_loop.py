"""Training: interrupted anywhere, it ends with the weights it would have had; and it learns."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
import torch

from detrbench import models
from detrbench.data import DataSpec, open_dataset
from detrbench.data.loading import batches
from detrbench.data.samples import Sample
from detrbench.data.shapes import ShapesDataset
from detrbench.data.transforms import Train
from detrbench.errors import Diverged, EnvironmentLacking
from detrbench.models.detector import Detector
from detrbench.results.folder import read_lines
from detrbench.training import checkpoint, loop, optimiser, step
from detrbench.training.checkpoint import STATES
from detrbench.training.recipe import Recipe
from detrbench.training.step import Part, train_step

DATA = DataSpec(kind="shapes", num_train=10, num_val=2, image_size=64)
RECIPE = Recipe(
    epochs=2, batch_size=4, lr=1e-3, lr_backbone=1e-3, lr_drops=[1], checkpoint_every_steps=1, warmup_steps=2, ema=0.9
)
STEPS = 6


def small(**overrides: Any) -> Detector:
    torch.manual_seed(0)
    options = {"hidden_dim": 32, "num_heads": 4, "ffn_dim": 32, "num_queries": 8, "num_classes": 12, "width": 8}
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 2}
    return models.create("sparse_detr_tiny", **{**options, **layers, "dropout": 0.1, **overrides})


def train(folder: Path, recipe: Recipe = RECIPE, stop_after: int | None = None, **arguments: Any) -> Any:
    def progress(at: loop.TrainProgress) -> None:
        if at.step == stop_after:
            raise KeyboardInterrupt

    dataset = open_dataset(DATA, "train")
    transform = Train(scales=(48, 64), longest=64, crop=False)
    return loop.train(small(), dataset, transform, recipe, folder, progress=progress, **arguments)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / loop.WEIGHTS)


class Undisturbed(NamedTuple):
    """A run from its beginning to its end, and what it left."""

    history: Any
    weights: dict[str, torch.Tensor]
    folder: Path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    history = train(folder, dataclasses.replace(RECIPE, checkpoint_every_steps=None))  # states cost more than steps
    return Undisturbed(history, weights(folder), folder)


@pytest.fixture(scope="module")
def _stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(KeyboardInterrupt):
        train(folder, stop_after=4)
    return folder


@pytest.fixture
def stopped(tmp_path: Path, _stopped: Path) -> Path:
    """The folder of a run that was interrupted after its fourth step."""
    return Path(shutil.copytree(_stopped, tmp_path / "run"))


@pytest.mark.parametrize(
    "stops", [[2, 3, 5, 6], *(pytest.param([stop], marks=pytest.mark.full) for stop in (1, 3, 5, 6))]
)
def test_an_interrupted_run_ends_with_the_same_weights(
    tmp_path: Path, undisturbed: Undisturbed, stops: list[int]
) -> None:
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, stop_after=stop)
    history = train(tmp_path)
    for name, tensor in weights(tmp_path).items():
        assert torch.equal(tensor, undisturbed.weights[name]), name
    assert [e["loss"] for e in history.epochs] == [e["loss"] for e in undisturbed.history.epochs]
    assert history.images_seen == undisturbed.history.images_seen == 20


def test_an_epoch_may_be_a_number_of_steps_and_resumes_within_it(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, iterations_per_epoch=4, lr_drops=[1.5], checkpoint_every_steps=2)
    history = train(tmp_path / "whole", recipe)
    assert (len(history.epochs), history.images_seen) == (2, 2 * 4 * 4)
    assert [epoch["lr"] for epoch in history.epochs] == pytest.approx([1e-3, 1e-4])
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", recipe, stop_after=6)
    train(tmp_path / "killed", recipe)
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_images_of_one_orientation_are_trained_together(tmp_path: Path) -> None:
    class Watched(ShapesDataset):
        read: ClassVar[list[int]] = []

        def __getitem__(self, index: int) -> Sample:
            self.read.append(index)
            return super().__getitem__(index)

    dataset, transform = Watched(DATA, "train"), Train(scales=(48, 64), longest=64, crop=False)
    recipe = dataclasses.replace(RECIPE, epochs=1, aspect_ratio_grouping=True)
    loop.train(small(), dataset, transform, recipe, tmp_path)
    assert sorted(Watched.read) == list(range(10))
    wide = (dataset.sizes[Watched.read, 0] > dataset.sizes[Watched.read, 1]).tolist()
    assert wide.count(True) in range(4, 7)  # so there is one batch of either kind, or two of one
    assert len(set(wide[:4])) == 1


def test_a_finished_run_is_not_done_again(tmp_path: Path, undisturbed: Undisturbed) -> None:
    shutil.copytree(undisturbed.folder, tmp_path, dirs_exist_ok=True)
    seen: list[int] = []
    again = loop.train(
        small(),
        open_dataset(DATA, "train"),
        Train(scales=(64,), longest=64, crop=False),
        RECIPE,
        tmp_path,
        progress=lambda at: seen.append(at.step),
    )
    assert seen == []
    assert again.epochs == undisturbed.history.epochs


def test_a_write_that_is_cut_leaves_the_last_state(stopped: Path, undisturbed: Undisturbed) -> None:
    (stopped / "state.partial").write_bytes(b"half a checkpoint")
    train(stopped)
    assert all(torch.equal(t, undisturbed.weights[n]) for n, t in weights(stopped).items())


def test_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Path.open

    def into_a_full_disk(path: Path, mode: str = "r", *how: Any, **more: Any) -> Any:
        return before(Path("/dev/full") if mode == "wb" else path, mode, *how, **more)

    monkeypatch.setattr(Path, "open", into_a_full_disk)
    with pytest.raises(EnvironmentLacking, match="no space left") as caught:
        train(tmp_path)
    assert "disk" in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "empty", "gone"])
def test_of_a_damaged_state_the_one_before_is_read(stopped: Path, damage: str) -> None:
    state = stopped / STATES[0]
    if damage == "gone":
        state.unlink()
    else:
        state.write_bytes(state.read_bytes()[:2000] if damage == "truncated" else b"")
    told: list[str] = []
    found = checkpoint.Checkpoint(stopped).read(told.append)
    assert found is not None
    assert (found["state"]["epoch"], found["state"]["batch"]) == (0, 2)
    assert len(told) == (damage != "gone")
    assert all("state.pt: damaged" in line for line in told)


def test_a_damaged_state_costs_no_more_than_the_step_before(stopped: Path, undisturbed: Undisturbed) -> None:
    state = stopped / STATES[0]
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    told: list[str] = []
    seen: list[int] = []
    dataset, transform = open_dataset(DATA, "train"), Train(scales=(48, 64), longest=64, crop=False)
    loop.train(
        small(),
        dataset,
        transform,
        RECIPE,
        stopped,
        progress=lambda at: seen.append(at.step),
        notice=told.append,
    )
    assert seen[0] == 3  # states are kept behind steps 1, 2 and, as an epoch ends, 3
    assert len(told) == 1
    assert "state.pt: damaged" in told[0]
    assert all(torch.equal(t, undisturbed.weights[n]) for n, t in weights(stopped).items())


@pytest.mark.parametrize("what", ["weights", "the moving average"])
def test_a_last_step_that_diverges_leaves_no_weights(stopped: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    take, name = loop._Training._take, "detector" if what == "weights" else "average"

    def break_the_last(self: Any, batches: Any, log: Any) -> float:
        loss = take(self, batches, log)
        if self.step == STEPS - 1:
            next(getattr(self, name).parameters()).data.flatten()[0] = float("nan")
        return loss

    monkeypatch.setattr(loop._Training, "_take", break_the_last)
    with pytest.raises(Diverged, match=f"{what} .* not finite"):
        train(stopped)
    assert not (stopped / loop.WEIGHTS).exists()
    kept = torch.load(stopped / STATES[0], weights_only=True)
    assert all(value.isfinite().all() for value in kept["detector"].values())


def test_a_loss_that_is_not_finite_stops_and_names_the_term(tmp_path: Path) -> None:
    detector = small()
    with torch.no_grad():
        detector.heads.class_embed[-1].weight.fill_(float("nan"))
    optim = optimiser.build(detector, RECIPE)
    batch = next(iter(batches(open_dataset(DATA, "train"), Train(scales=(64,), longest=64, crop=False), 2)))
    with pytest.raises(Diverged, match="not finite"):  # the matching cannot do with it
        train_step(detector.train(), optim, Part.of([batch]), 0.1, 1.0)


def test_a_state_is_kept_by_the_clock_too(tmp_path: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = dataclasses.replace(RECIPE, checkpoint_every_steps=None)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, recipe, stop_after=3)
    assert not (tmp_path / STATES[0]).exists()
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, recipe, stop_after=3)
    kept = [torch.load(tmp_path / name, weights_only=True)["state"]["batch"] for name in STATES]
    assert kept == [2, 1]
    train(tmp_path, recipe)
    assert all(torch.equal(t, undisturbed[1][n]) for n, t in weights(tmp_path).items())


def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the fifth step on, one loss term of the images that are read is not finite."""
    run, calls = step._backward, iter(range(100))

    def backward(*arguments: Any) -> dict[str, torch.Tensor]:
        losses = run(*arguments)
        return losses if next(calls) != 4 else losses | {"loss_ce": torch.tensor(math.inf)}

    monkeypatch.setattr(step, "_backward", backward)


def test_a_training_that_diverged_names_the_batch_and_goes_on_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states, log = tmp_path / "checkpoint", tmp_path / "log.jsonl"
    poisoned(monkeypatch)
    monkeypatch.setattr(loop, "EVERY", 1)
    with pytest.raises(Diverged, match=r"^training diverged: loss_ce is not finite, images .*, step 5$") as caught:
        train(states, log=log)
    assert caught.value.hint == ("lower lr, or raise warmup_steps; or go on without that step: --skip-batches 5")
    (line,) = [line for line in read_lines(log) if "diverged" in line]
    assert (line["step"], line["terms"]["loss_ce"]) == (5, "inf")
    assert math.isfinite(line["terms"]["loss_bbox"])
    assert caught.value.message.endswith(f"images {', '.join(map(str, line['image_ids']))}, step 5")
    assert torch.load(states / STATES[0], weights_only=True)["state"]["batch"] == 1  # the fourth step is the last good
    history = train(states, log=log, skip=[5])
    assert history.skipped == [5]
    assert history.images_seen == 16
    assert [entry["epoch"] for entry in history.epochs] == [1, 2]
    totals = {line["step"]: line["total"] for line in read_lines(log) if "total" in line}
    assert list(totals) == [1, 2, 3, 4, 6]
    assert history.epochs[1]["loss"] == pytest.approx((totals[4] + totals[6]) / 2)


def test_too_many_images_at_once_say_what_would_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(Detector, "forward", full)
    less = "activation_checkpointing=true or "
    for micro_batch, recomputed, fits in (
        (2, False, f"{less}micro_batch=1"),
        (1, False, f"{less}shortest=SMALLER"),
        (2, True, "micro_batch=1"),
    ):
        recipe = dataclasses.replace(RECIPE, micro_batch=micro_batch, activation_checkpointing=recomputed)
        with pytest.raises(EnvironmentLacking, match=rf"^out of memory: {micro_batch} x \d+ x \d+ .*--set {fits}$"):
            train(tmp_path, recipe)


def test_the_log_has_means_over_steps_and_forgets_what_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "EVERY", 2)
    recipe = dataclasses.replace(RECIPE, checkpoint_every_steps=3)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "a", recipe, stop_after=5, log=tmp_path / "log.jsonl")
    lines = list(read_lines(tmp_path / "log.jsonl"))
    assert [line["step"] for line in lines] == [2, 3, 4]
    history = train(tmp_path / "a", recipe, log=tmp_path / "log.jsonl")
    lines = list(read_lines(tmp_path / "log.jsonl"))
    assert [(line["step"], line["epoch"]) for line in lines] == [(2, 2 / 3), (3, 1), (4, 4 / 3), (6, 2)]
    assert (2 * lines[0]["total"] + lines[1]["total"]) / 3 == pytest.approx(history.epochs[0]["loss"])
    assert (2 * lines[0]["loss_bbox"] + lines[1]["loss_bbox"]) / 3 == pytest.approx(
        history.epochs[0]["losses"]["loss_bbox"]
    )
    assert [line["lr"] for line in lines] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])
    assert all(line["gradient_norm"] > 0.1 for line in lines)  # what it is clipped to
    assert all(line["images_per_second"] > 0 and line["memory_mib"] > 50 for line in lines)


def test_a_log_that_is_cut_short_is_read_up_to_there(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [line["step"] for line in read_lines(tmp_path / "log.jsonl")] == [1, 2]
    assert list(read_lines(tmp_path / "none")) == []


def test_a_backbone_rate_of_zero_keeps_the_backbone(tmp_path: Path) -> None:
    detector = small()
    groups = optimiser.build(detector, Recipe(lr_backbone=0.0)).param_groups
    held = {id(p) for p in detector.backbone.parameters()}
    assert not held & {id(p) for group in groups for p in group["params"]}


def test_evaluation_goes_into_the_history(tmp_path: Path) -> None:
    figures = iter([{"AP": 1.0}, {"AP": 2.0}])
    history = train(tmp_path, Recipe(epochs=3, batch_size=8, eval_every_epochs=2), evaluate=lambda _: next(figures))
    assert [entry.get("AP") for entry in history.epochs] == [None, 1.0, 2.0]


@pytest.mark.full
def test_it_learns(tmp_path: Path) -> None:
    recipe = Recipe(epochs=25, batch_size=5, lr=2e-3, lr_backbone=2e-3, lr_drops=None, clip_norm=1.0)
    history = train(tmp_path, recipe)
    assert history.epochs[-1]["loss"] < 0.6 * history.epochs[0]["loss"]
