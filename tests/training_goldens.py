"""Holds training against the official code's: losses, matching, gradients, under the random numbers it was given."""

from __future__ import annotations

import contextlib
import functools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_files import GOLDENS, golden, official_detector, targets_of
from reference.seeded import seeded_batch
from torch import Tensor

from detrbench import models
from detrbench.models import checkpoints
from detrbench.models.matcher import Unmatched, match, stacked
from detrbench.models.targets import Objects

# Official names of losses -> ours: detrex says class for ce, RT-DETR vfl, Lite says interm, DINO numbers the layers
# behind `dn`.
RENAMED = {"loss_class": "loss_ce", "loss_vfl": "loss_ce", "_interm": "_enc", "select_loss": "loss_foreground"}
# Sums that the original code logs and does not train on.
LOGGED = ("loss_xy", "loss_hw", "class_error", "cardinality_error")


@functools.cache
def recorded(name: str) -> dict[str, Any]:
    """One training golden."""
    return json.loads((GOLDENS / "training" / f"{name}.training.json").read_text())


class Training:
    """A detector with the golden's weights, its batch and its targets."""

    def __init__(self, golden_name: str, folder: Path) -> None:
        self.name, self.golden = golden_name, recorded(golden_name)
        self.detector = official_detector(golden_name, folder).train()
        self.images, self.masks = seeded_batch(self.golden["images"])
        targets = self.golden["targets"]
        boxes = targets["boxes_cxcywh_normalised_by_unpadded_image"]
        pairs = [{"labels": labels, "boxes": box} for labels, box in zip(targets["labels"], boxes)]
        self.targets = targets_of(pairs, len(pairs))

    def run(self, denoising: bool) -> tuple[Any, dict[str, Tensor]]:
        """Output and losses of one training forward."""
        out = self.detector(self.images, self.masks, targets=self.targets if denoising else None)
        return out, self.detector.criterion(out, self.targets)

    def gradient_norms(self) -> dict[str, float]:
        """L2 norm of the gradient of each parameter, by our name."""
        return {
            name: float(parameter.grad.norm())
            for name, parameter in self.detector.named_parameters()
            if parameter.grad is not None
        }

    def official_gradients(self) -> dict[str, float]:
        """Recorded norms, by our name."""
        norms = self.golden["gradients_of_weighted_total"]["all"]
        state = {name: torch.tensor(float(norm), dtype=torch.float64) for name, norm in norms.items()}
        adapter = checkpoints.adapter_for(dict.fromkeys(golden(self.name)["shapes"], torch.zeros(())), Path(self.name))
        return {name: float(norm) for name, norm in adapter.translate(state, self.detector)[0].items()}


def official_losses(unweighted: dict[str, float], denoising: bool) -> dict[str, float]:
    """Recorded losses that are trained on, by our names."""
    losses = {}
    for name, value in unweighted.items():
        if name.startswith(LOGGED) or ("_dn" in name and not denoising):
            continue
        for theirs, ours in RENAMED.items():
            name = name.replace(theirs, ours)
        losses[name] = value
    return losses


def check_losses(training: Training, losses: dict[str, Tensor], section: dict[str, Any], denoising: bool) -> None:
    """Each term, and the weighted total."""
    expected = official_losses(section["unweighted"], denoising)
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-8, abs=1e-9)
    total = training.detector.criterion.total(losses).item()
    assert total == pytest.approx(section["weighted_total"], rel=1e-8)


def check_matching(out: Any, targets: list[dict[str, Tensor]], section: dict[str, Any]) -> None:
    """The query of each object, in every decoder layer and for the proposals."""
    predictions = {f"layer_{index}": prediction for index, prediction in enumerate(out.layers)}
    predictions["enc"] = out.queries.proposals
    for label, images in section.items():
        key = next((key for key in predictions if label.startswith(key) or key in label), None)
        if label.startswith("interm"):
            key = "enc"
        assert key is not None, label
        objects = Objects.of(targets, predictions[key].boxes)
        found = match([Unmatched(stacked([predictions[key]]), objects)])[0].query[0, :, 0]
        for queries, want in zip(found.split(objects.counts), images):
            expected = want["query_per_target"] if isinstance(want, dict) else want
            assert queries.tolist() == expected, label


def check_gradients(training: Training, losses: dict[str, Tensor], vanishing: float = 0.0) -> None:
    """Norm of the gradient of each parameter; a parameter without gradient counts as zero.

    Args:
        training: whose gradients.
        losses: of a forward.
        vanishing: norms up to here are zero but for rounding.
    """
    training.detector.zero_grad()
    training.detector.criterion.total(losses).backward()
    ours, expected = training.gradient_norms(), training.official_gradients()
    for name, norm in expected.items():
        # Eight digits are recorded of each norm, however small; what is recorded as zero is exactly zero.
        assert ours.get(name, 0.0) == pytest.approx(norm, rel=1e-6, abs=vanishing), name
    assert set(ours) <= set(expected)


@contextlib.contextmanager
def fixed_random(kind: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The random numbers of a golden: "const" or "pattern"."""

    def uniform(like: Tensor, **options: Any) -> Tensor:
        index = torch.arange(like.numel(), dtype=torch.float64).view(like.shape)
        values = torch.full(like.shape, 0.5, dtype=torch.float64) if kind == "const" else (0.37 * index + 0.11) % 1
        return values.to(options.get("dtype") or like.dtype)

    def integers(like: Tensor, low: int, high: int, **options: Any) -> Tensor:
        index = torch.arange(like.numel()).view(like.shape)
        values = torch.full(like.shape, low) if kind == "const" else low + (7 * index + 3) % (high - low)
        return values.to(options.get("dtype") or like.dtype)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "rand_like", uniform)
        patch.setattr(torch, "randint_like", integers)
        yield


def check_noised(training: Training, queries: Any, section: dict[str, Any]) -> None:
    """Content, boxes and mask of the noised queries."""
    count = section["pad_size"]
    assert (queries.noised, queries.noised_groups) == (count, section["number_of_groups"])
    assert float(queries.content[:, :count].sum()) == pytest.approx(section["label_query_sum"], rel=1e-8)
    boxes = torch.tensor(section["noised_boxes_sigmoid_per_image_per_slot"], dtype=torch.float64)
    assert torch.allclose(queries.reference_points[:, : boxes.shape[1]], boxes, atol=1e-8)
    mask = section["attention_mask"]
    blocked = queries.blocked
    assert (list(blocked.shape), int(blocked.sum())) == (mask["shape"], mask["number_of_true"])
    expected = torch.zeros_like(blocked)
    for block in mask["half_open_row_blocks"]:
        for low, high in block["masked_column_ranges"]:
            expected[slice(*block["rows"]), low:high] = True
    assert torch.equal(blocked, expected)


def tiny(name: str, **options: Any) -> Any:
    """A detector small enough for tests that always run."""
    torch.manual_seed(0)
    small = {"hidden_dim": 32, "num_heads": 4, "ffn_dim": 64, "num_queries": 20, "num_classes": 5, "width": 8}
    layers = {"num_encoder_layers": 3, "num_decoder_layers": 3}
    shares = {"focus": {"keep_ratios": [0.5, 0.3, 0.1]}, "salience": {"layer_ratios": [1.0, 0.6, 0.2]}}
    ratios = shares.get(name.partition("_")[0], {})
    return models.create(name, **{"dropout": 0.0, **small, **layers, **ratios, **options})


def random_batch(count: int = 2, size: int = 96) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Images, and a few objects on each but the last, which has none."""
    generator = torch.Generator().manual_seed(1)
    targets = []
    for image in range(count):
        objects = 0 if image == count - 1 else 3
        boxes = torch.rand(objects, 4, generator=generator) * 0.3 + 0.3
        targets.append({"labels": torch.arange(objects), "boxes": boxes})
    return torch.randn(count, 3, size, size, generator=generator), targets


def check_trains(detector: Any, untrained: str = "nothing") -> None:
    """Losses are finite, with objects and without, and give each trained parameter a finite gradient.

    Args:
        detector: is left in training mode.
        untrained: parameters whose name starts with this are expected to get none.
    """
    detector.train()
    images, targets = random_batch()
    empty = [{"labels": target["labels"][:0], "boxes": target["boxes"][:0]} for target in targets]
    for batch in (empty, targets):
        detector.zero_grad()
        losses = detector.criterion(detector(images, targets=batch), batch)
        assert all(math.isfinite(loss.item()) for loss in losses.values()), losses
        detector.criterion.total(losses).backward()
    grads = {name: parameter.grad for name, parameter in detector.named_parameters() if parameter.requires_grad}
    for name, grad in grads.items():
        assert (grad is None) == name.startswith(untrained), name
        assert grad is None or grad.isfinite().all(), name


def check_batch_is_single(detector: Any) -> None:
    """Images of one size give the same in a batch as alone."""
    detector = detector.double().eval()
    images = random_batch()[0].double()
    with torch.no_grad():
        together = detector(images)
        alone: Callable[[int], Any] = lambda index: detector(images[index : index + 1])  # noqa: E731
        for index in range(len(images)):
            assert torch.allclose(together.pred_boxes[index], alone(index).pred_boxes[0], atol=1e-9)
            assert torch.allclose(together.pred_logits[index], alone(index).pred_logits[0], atol=1e-9)


def check_step(training: Training) -> Any:
    """Losses, matching and gradients of a step without denoising; returns what the detector gave."""
    out, losses = training.run(denoising=False)
    check_losses(training, losses, training.golden["losses"], denoising=False)
    check_matching(out, training.targets, training.golden["matching"])
    check_gradients(training, losses)
    return out


def check_noised_steps(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noised queries and losses of a step with denoising, for each kind of random numbers."""
    for kind, section in training.golden["denoising"].items():
        with fixed_random(kind, monkeypatch), torch.no_grad():
            out, losses = training.run(denoising=True)
        check_noised(training, out.queries, section)
        check_losses(training, losses, section["losses_with_denoising_on"], denoising=True)
