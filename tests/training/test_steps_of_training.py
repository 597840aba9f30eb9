"""What one step, one epoch and the moving average do, against figures worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from families import small
from safetensors.torch import load_file
from torch import Tensor, nn

from detrbench.data import DataSpec, open_dataset
from detrbench.data.loading import Batch
from detrbench.data.samples import Dataset, Sample
from detrbench.data.transforms import Eval
from detrbench.errors import Diverged
from detrbench.models.detector import Detector
from detrbench.training import loop
from detrbench.training.recipe import Recipe
from detrbench.training.step import Part, train_step

SHAPES = DataSpec(kind="shapes", num_train=8, num_val=2, image_size=48, max_objects=2)
BATCH = Batch(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool), [], [1], torch.tensor([[4, 4]]))


class Slope(nn.Module):
    """Two parameters whose loss terms are 3 a and 4 b: the gradient is (3, 4), of norm 5."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(2))
        self.criterion = Terms()

    def forward(self, images: Tensor, masks: Tensor, targets: list[Any]) -> SimpleNamespace:
        return SimpleNamespace(a=self.a, b=self.b)


class Terms(nn.Module):
    def forward(self, out: SimpleNamespace, targets: list[Any], num_boxes: float) -> dict[str, Tensor]:
        return {"first": 3 * out.a[0] + 7, "second": 2 * out.b[0]}

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        return losses["first"] + 2 * losses["second"]


def step(clip_norm: float, factor: float = 1.0) -> tuple[list[float], dict[str, float]]:
    """Where a step of plain gradient descent at rate 1 leads, and what it says of its losses."""
    slope = Slope()
    optim = torch.optim.SGD([{"params": [slope.a], "base_lr": 1.0}, {"params": [slope.b], "base_lr": 0.5}], lr=9.0)
    losses, _ = train_step(slope, optim, Part.of([BATCH]), clip_norm, factor)  # type: ignore[arg-type]
    return [float(slope.a.detach()), float(slope.b.detach())], losses


def test_a_step_goes_down_the_gradient_of_the_total_by_each_groups_rate() -> None:
    place, losses = step(clip_norm=0)
    assert place == pytest.approx([-3, -2])
    assert losses == {"first": 7, "second": 0, "total": 7}


def test_the_factor_is_on_every_rate() -> None:
    assert step(clip_norm=0, factor=0.1)[0] == pytest.approx([-0.3, -0.2])


def test_the_norm_over_all_parameters_is_clipped() -> None:
    assert step(clip_norm=0.1)[0] == pytest.approx([-0.1 * 3 / 5, -0.1 * 4 / 5 * 0.5], rel=1e-4)
    assert step(clip_norm=50)[0] == pytest.approx([-3, -2])  # a shorter gradient stays as it is


def test_gradients_do_not_add_up_over_steps() -> None:
    slope = Slope()
    optim = torch.optim.SGD([{"params": [slope.a, slope.b], "base_lr": 1.0}], lr=1.0)
    for _ in range(3):
        train_step(slope, optim, Part.of([BATCH]), 0, 1.0)  # type: ignore[arg-type]
    assert float(slope.a.detach()) == pytest.approx(-9)


def test_a_loss_that_is_not_finite_is_named_and_changes_no_weight() -> None:
    slope = Slope()
    optim = torch.optim.SGD([{"params": [slope.a, slope.b], "base_lr": 1.0}], lr=1.0)
    slope.b.data.fill_(float("inf"))
    with pytest.raises(Diverged, match="training diverged: second is not finite"):
        train_step(slope, optim, Part.of([BATCH]), 0, 1.0)  # type: ignore[arg-type]
    assert float(slope.a.detach()) == 0


# ------------------------------------------------------------------------------------------- a whole training


def train(folder: Path, recipe: Recipe, dataset: Dataset | None = None, **more: Any) -> tuple[Detector, Any]:
    detector = small("deformable_detr", 12)
    data = dataset or open_dataset(SHAPES, "train")
    return detector, loop.train(detector, data, Eval(48, 48), recipe, folder, **more)


def numbers(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items() if value.is_floating_point()}


@pytest.mark.parametrize(
    ("warmup", "decays"),
    [
        # Six steps: the memory grows as (1 + t) / (10 + t), until that passes 0.3 at the fourth.
        (None, (1 / 10, 2 / 11, 3 / 12, 0.3, 0.3, 0.3)),
        (2, tuple(0.3 * (1 - math.exp(-step / 2)) for step in range(1, 7))),
    ],
)
def test_the_saved_weights_are_the_moving_average(
    warmup: int | None, decays: tuple[float, ...], tmp_path: Path
) -> None:
    rates = {"lr": 1e-2, "lr_backbone": 1e-2}
    recipe = Recipe(epochs=3, batch_size=4, ema=0.3, ema_warmup=warmup, eval_every_epochs=3, **rates)
    detector, kept, shown = small("deformable_detr", 12), list[dict[str, Tensor]](), list[dict[str, Tensor]]()
    mean = numbers(detector)

    def evaluate(at: Detector) -> dict[str, float | None]:
        assert not at.training
        shown.append(numbers(at))
        return {"AP": 1.0}

    loop.train(
        detector,
        open_dataset(SHAPES, "train"),
        Eval(48, 48),
        recipe,
        tmp_path,
        evaluate,
        progress=lambda at: kept.append(numbers(detector)),
    )
    for decay, state in zip(decays, kept, strict=True):
        mean = {name: decay * mean[name] + (1 - decay) * state[name] for name in mean}
    saved = load_file(tmp_path / loop.WEIGHTS)
    for found in (saved, shown[-1], numbers(detector)):
        for name, value in mean.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)
    assert any(not torch.allclose(mean[name], kept[-1][name], atol=1e-3) for name in mean)


def test_without_an_average_the_last_weights_are_saved(tmp_path: Path) -> None:
    detector, kept = small("deformable_detr", 12), list[dict[str, Tensor]]()
    data = open_dataset(SHAPES, "train")
    recipe = Recipe(epochs=2, batch_size=8, lr=1e-2, lr_backbone=1e-2)
    tell = lambda at: kept.append(numbers(detector))  # noqa: E731
    loop.train(detector, data, Eval(48, 48), recipe, tmp_path, progress=tell)
    saved = load_file(tmp_path / loop.WEIGHTS)
    assert all(torch.equal(saved[name], value) for name, value in kept[-1].items())


class Watched:
    """A data set that notes which images were read, in their order."""

    def __init__(self) -> None:
        self.dataset = open_dataset(SHAPES, "train")
        self.read: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        self.read.append(index)
        return self.dataset[index]


def test_every_epoch_sees_all_images_in_an_order_of_its_own(tmp_path: Path) -> None:
    watched: Any = Watched()
    train(tmp_path, Recipe(epochs=3, batch_size=4, seed=5), watched)
    epochs = [watched.read[i : i + 8] for i in (0, 8, 16)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(8))] * 3
    assert len({tuple(epoch) for epoch in [*epochs, list(range(8))]}) == 4


def test_the_seed_of_the_recipe_decides_the_order(tmp_path: Path) -> None:
    orders = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        watched: Any = Watched()
        train(tmp_path / name, Recipe(epochs=1, batch_size=4, seed=seed), watched)
        orders.append(watched.read)
    assert orders[0] == orders[1] != orders[2]


def test_the_history_holds_means_over_steps_and_the_rate_of_the_epoch(tmp_path: Path) -> None:
    seen: list[loop.TrainProgress] = []
    recipe = Recipe(epochs=2, batch_size=4, lr=1e-3, lr_backbone=1e-4, lr_drops=[1])
    _, history = train(tmp_path, recipe, progress=seen.append)
    first, second = history.epochs
    assert [at.step for at in seen] == [1, 2, 3, 4]
    assert [(at.epoch, at.epochs, at.steps) for at in seen] == [(0, 2, 4)] * 2 + [(1, 2, 4)] * 2
    assert first["loss"] == pytest.approx((seen[0].loss + seen[1].loss) / 2)
    assert second["loss"] == pytest.approx((seen[2].loss + seen[3].loss) / 2)
    assert (first["lr"], second["lr"]) == pytest.approx((1e-3, 1e-4))
    assert (first["epoch"], second["epoch"], history.images_seen) == (1, 2, 16)
    assert "total" not in first["losses"]
    weights = {"loss_ce": 2, "loss_bbox": 5, "loss_giou": 2}  # the terms are kept unweighted, their sum weighted
    assert first["loss"] == pytest.approx(
        sum(weights[name[:-2] if name[-2] == "_" else name] * value for name, value in first["losses"].items()),
        rel=1e-4,
    )
