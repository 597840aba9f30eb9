"""A step is the same however its micro-batches are shared out, for every family."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from families import FAMILIES, small
from torch import Tensor

from detrbench.data import DataSpec, open_dataset
from detrbench.data.loading import Batch, steps
from detrbench.data.order import Order
from detrbench.data.transforms import Train
from detrbench.models.detector import Detector
from detrbench.training.recipe import Recipe
from detrbench.training.step import Part, train_step
from detrbench.training.sums import PairwiseSum

SHAPES = DataSpec(kind="shapes", num_train=16, image_size=64, max_objects=3, min_size=16, clutter=0.1)
SIZES = Train(scales=(48, 64), longest=96, crop=False)


QUICK = ("sparse_detr", "focus_detr", "dac_detr")  # terms that are means over images, noise, several matches an object


def slow(family: str) -> object:
    """A parameter that `make test-full` alone runs."""
    return pytest.param(family, marks=pytest.mark.full)


def micro_batches(count: int, size: int, dtype: torch.dtype = torch.float64) -> list[Batch]:
    """The first step of `count` images; every second image has no objects."""
    found = next(steps(open_dataset(SHAPES, "train"), SIZES, Order(count, seed=3), size, epochs=[0]))
    return [changed(batch, dtype) for batch in found]


def changed(batch: Batch, dtype: torch.dtype) -> Batch:
    kept = [slice(0, image_id % 2 * 9) for image_id in batch.image_ids]
    targets = [
        {"labels": target["labels"][some], "boxes": target["boxes"][some].to(dtype)}
        for target, some in zip(batch.targets, kept)
    ]
    return Batch(batch.images.to(dtype), batch.masks, targets, batch.image_ids, batch.sizes)


def part(batch: Batch, some: slice) -> Batch:
    """Some of the images, padded as the whole batch is."""
    return Batch(batch.images[some], batch.masks[some], batch.targets[some], batch.image_ids[some], batch.sizes[some])


def step(detector: Detector, batches: Sequence[Batch]) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Loss terms and gradients of one step that changes nothing."""
    optim = torch.optim.SGD([{"params": list(detector.parameters()), "base_lr": 0.0}], lr=0.0)
    losses, _ = train_step(detector, optim, Part.of(batches), clip_norm=0.0, factor=1.0, seed=7)
    return losses, {name: p.grad for name, p in detector.named_parameters() if p.grad is not None}


def check_equal(found: dict[str, float], expected: dict[str, float], rel: float) -> None:
    assert found == pytest.approx(expected, rel=rel, abs=1e-12)


def check_gradients(found: dict[str, Tensor], expected: dict[str, Tensor], rel: float) -> None:
    assert set(found) == set(expected)
    scales = {name: float(gradient.abs().max()) for name, gradient in expected.items()}
    vanishing = 1e-6 * max(scales.values())  # of a bias in front of a batch norm, but for rounding
    for name, gradient in expected.items():
        assert float((found[name] - gradient).abs().max()) <= rel * max(scales[name], vanishing), name


def by_hand(detector: Detector, batches: Sequence[Batch]) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The mean over the micro-batches of losses that are divided by the mean number of objects."""
    objects = sum(len(target["labels"]) for batch in batches for target in batch.targets) / len(batches)
    terms: list[dict[str, float]] = []
    detector.zero_grad()
    for number, batch in enumerate(batches):
        torch.manual_seed(7 + number)
        out = detector(batch.images, batch.masks, targets=batch.targets)
        losses = detector.criterion(out, batch.targets, objects)
        total = detector.criterion.total(losses)
        total.backward()
        terms.append({name: loss.item() for name, loss in losses.items()} | {"total": total.item()})
    names = set(itertools.chain(*terms))
    means = {name: sum(found.get(name, 0.0) for found in terms) / len(batches) for name in names}
    return means, {n: p.grad / len(batches) for n, p in detector.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", [family if family in QUICK else slow(family) for family in FAMILIES])
def test_a_step_is_the_mean_over_its_micro_batches(family: str) -> None:
    batches = micro_batches(6, 2)
    detector = small(family, 12).double().train()
    detector.backbone.eval()  # its batch statistics are looked at below
    losses, gradients = step(detector, batches)
    gradients = {name: gradient.clone() for name, gradient in gradients.items()}
    expected = by_hand(detector, batches)
    check_equal(losses, expected[0], rel=1e-9)
    check_gradients(gradients, expected[1], rel=1e-9)


@pytest.mark.parametrize("family", ["deformable_detr", "h_detr"])
def test_without_noise_and_with_the_same_padding_the_split_of_a_batch_does_not_matter(family: str) -> None:
    detector = small(family, 12).double().train()
    detector.backbone.eval()
    (batch,) = micro_batches(8, 8)
    losses, gradients = step(detector, [batch])
    gradients = {name: gradient.clone() for name, gradient in gradients.items()}
    parts = step(detector, [part(batch, slice(i, i + 2)) for i in range(0, 8, 2)])
    check_equal(parts[0], losses, rel=1e-9)
    check_gradients(parts[1], gradients, rel=1e-7)


def test_each_micro_batch_is_padded_by_itself_and_has_noise_of_its_own() -> None:
    batches = micro_batches(8, 2)
    assert len({batch.images.shape for batch in batches}) > 1
    detector = small("dn_deformable_detr", 12).double().train()
    twice = step(detector, [batches[0], batches[0]])[0]
    once = step(detector, [batches[0]])[0]
    assert twice["loss_bbox"] == pytest.approx(once["loss_bbox"], rel=1e-6)
    assert twice["loss_bbox_dn"] != pytest.approx(once["loss_bbox_dn"], rel=1e-6)


def test_running_statistics_take_one_step_to_the_mean_of_the_micro_batches() -> None:
    batches, found = micro_batches(8, 2), []
    for some in ([batches[0]], [batches[1]], batches[:2]):
        detector = small("deformable_detr", 12).double().train()
        step(detector, some)
        found.append(next(value for name, value in detector.named_buffers() if name.endswith("running_mean")))
    torch.testing.assert_close(found[2], (found[0] + found[1]) / 2)


def test_a_parameter_that_no_micro_batch_uses_has_no_gradient() -> None:
    detector = small("dn_deformable_detr", 12).double().train()
    batches = micro_batches(16, 1)
    empty = [batch for batch in batches if not len(batch.targets[0]["labels"])]
    used = [batch for batch in batches if len(batch.targets[0]["labels"])]
    name = "denoising.label_embedding.weight"
    assert name not in step(detector, empty[:2])[1]
    assert name in step(detector, [empty[0], used[0]])[1]


@pytest.mark.parametrize("shares", [(8,), (4, 4), (2, 2, 2, 2), (1,) * 8])
def test_sums_of_equal_shares_have_the_same_bits(shares: Sequence[int]) -> None:
    values = iter(torch.randn(8, 1000, generator=torch.Generator().manual_seed(0)) * 10.0 ** torch.arange(8)[:, None])
    whole = PairwiseSum()
    for share in shares:
        part = PairwiseSum()
        for value in itertools.islice(values, share):
            part.add([value.clone()])
        whole.add(part.total())
    (found,) = whole.total()
    eight = torch.randn(8, 1000, generator=torch.Generator().manual_seed(0)) * 10.0 ** torch.arange(8)[:, None]
    a, b, c, d, e, f, g, h = eight
    assert found is not None
    assert torch.equal(found, ((a + b) + (c + d)) + ((e + f) + (g + h)))


def test_nothing_is_a_zero_in_a_sum() -> None:
    found = PairwiseSum()
    for value in (None, torch.tensor(2.0), torch.tensor(3.0)):
        found.add([value, None])
    assert found.total() == [torch.tensor(5.0), None]


@pytest.mark.parametrize(("micro_batch", "images"), [(None, 16), (16, 16), (2, 2)])
def test_images_at_once(micro_batch: int | None, images: int) -> None:
    assert Recipe(batch_size=16, micro_batch=micro_batch).images_at_once == images
