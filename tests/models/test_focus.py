"""Focus-DETR: official labels and training in float64, and the laws it obeys at a tiny size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training_goldens import (
    Training,
    check_batch_is_single,
    check_noised_steps,
    check_step,
    check_trains,
    random_batch,
    tiny,
)

from detrbench import models
from detrbench.errors import UsageError
from detrbench.models.encoders.focus import cascade
from detrbench.models.foreground import foreground_labels
from detrbench.models.targets import Objects

NAME = "focus_detr_r50_4scale"
BASES = ("focus_detr_tiny", "focus_deformable_detr_tiny", "focus_efficient_detr_tiny", "focus_dn_deformable_detr_tiny")


@pytest.mark.full
def test_training_is_the_official_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(NAME, tmp_path)
    out = check_step(training)
    recorded = training.golden["foreground_label_assignment"]
    assert float(out.encoded.foreground.sum()) == pytest.approx(recorded["score_sum"], rel=1e-8)
    for section in recorded.values():
        if isinstance(section, dict):
            labels = foreground_labels(out.tokens, Objects.of(training.targets, out.pred_boxes), section["intervals"])
            assert [row.nonzero()[:, 0].tolist() for row in labels] == section["positive_token_indices"]
    check_noised_steps(training, monkeypatch)


@pytest.mark.parametrize("name", BASES)
def test_trains_on_every_base(name: str) -> None:
    check_trains(tiny(name))


@pytest.mark.parametrize(
    "options",
    [
        {"modulation": "bottom_up"},
        {"dual_attention": False},
        {"category_score": False, "fine_tokens": 4},
    ],
    ids=str,
)
def test_ablations_train(options: dict[str, Any]) -> None:
    check_trains(tiny("focus_detr_tiny", **options))


def test_nothing_trains_scores_that_are_neither_supervised_nor_modulate() -> None:
    detector = tiny("focus_detr_tiny", modulation="none", foreground_supervision=False)
    check_trains(detector, untrained="encoder.selector.score_network")


def modulated_by(detector: Any, alpha: float) -> Any:
    """The trace of a forward with that factor between all levels."""
    with torch.no_grad():
        detector.encoder.selector.alpha.fill_(alpha)
        return detector(random_batch()[0].double(), trace=True).trace


@pytest.mark.parametrize("modulation", ["top_down", "bottom_up"])
def test_only_the_sign_of_the_modulation_passes_the_layer_norm(modulation: str) -> None:
    """A token is multiplied by 1 + alpha * score, and the next layer divides by the token's deviation."""
    detector = tiny("focus_detr_tiny", modulation=modulation).double().eval()
    without, with_it = (modulated_by(detector, alpha) for alpha in (0.0, 0.3))
    assert (0.3 * without.scores).abs().max() > 0.1  # tokens change by a tenth and more
    assert (with_it.scores - without.scores).abs().max() < 1e-4 * without.scores.std()
    for before, after in zip(without.kept_tokens, with_it.kept_tokens):
        assert all(set(a.tolist()) == set(b.tolist()) for a, b in zip(before, after))

    with torch.no_grad():
        detector.encoder.selector.score_network.joint[-1].bias.fill_(-5.0)  # 1 - 0.3 * 5 turns tokens round
    without, with_it = (modulated_by(detector, alpha) for alpha in (0.0, 0.3))
    assert (with_it.scores - without.scores).abs().max() > without.scores.std()
    assert set(with_it.kept_tokens[0][0].tolist()) != set(without.kept_tokens[0][0].tolist())


def test_nothing_pulls_at_the_factors_of_the_modulation() -> None:
    detector = tiny("focus_detr_tiny").double().train()
    images, targets = random_batch()
    losses = detector.criterion(detector(images.double(), targets=targets), targets)
    detector.criterion.total(losses).backward()
    selector = detector.encoder.selector
    assert 0 < selector.alpha.grad.norm() < 1e-4 * selector.score_network.local[1].weight.grad.norm()


def test_batch_is_single() -> None:
    check_batch_is_single(tiny("focus_detr_tiny"))


def test_tokens_are_nested_and_counted_by_image() -> None:
    detector = tiny("focus_detr_tiny").eval()
    images, masks = random_batch()[0], torch.zeros(2, 96, 96, dtype=torch.bool)
    masks[1, :, 64:] = True
    with torch.no_grad():
        trace = detector(images, masks, trace=True).trace
    for image in range(2):
        layers = [set(layer[image].tolist()) for layer in trace.kept_tokens]
        assert all(later <= earlier for earlier, later in zip(layers, layers[1:]))
        assert not trace.padding[image, list(layers[0])].any()
    assert len(trace.kept_tokens[0][1]) == int(int((~trace.padding[1]).sum()) * 0.5) + 1


@pytest.mark.parametrize(
    ("num_valid", "ratios", "expected"),
    [
        ([3319], [0.5, 0.4, 0.3, 0.3, 0.2, 0.1], ([1660], [1660, 1328, 996, 996, 664, 332])),
        ([3571], [0.5, 0.4, 0.3, 0.3, 0.2, 0.1], ([1786], [1786, 1428, 1071, 1071, 714, 357])),
        ([100], [1.0] * 6, ([100], [100] * 6)),
        ([9, 4], [0.1, 0.2], ([2, 1], [1, 2])),
    ],
)
def test_counts(num_valid: list[int], ratios: list[float], expected: tuple[list[int], list[int]]) -> None:
    assert cascade(num_valid, ratios) == expected


def test_all_tokens_are_updated_where_everything_is_kept() -> None:
    detector = tiny("focus_detr_tiny", keep_ratios=[1.0] * 3).eval()
    with torch.no_grad():
        trace = detector(random_batch()[0], trace=True).trace
    assert {len(tokens) for layer in trace.kept_tokens for tokens in layer} == {trace.padding.shape[1]}


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="'keep_ratios': expected 6 shares"):
        models.create("focus_detr_tiny", keep_ratios=[0.3])
    with pytest.raises(UsageError, match="'scale_intervals': expected 4 pairs"):
        models.create("focus_detr_tiny", scale_intervals=[[0, 1]])
    with pytest.raises(UsageError, match="modulation"):
        models.create("focus_detr_tiny", modulation="sideways")


def test_runs_on_the_meta_device() -> None:
    with torch.device("meta"):
        detector = tiny("focus_detr_tiny").eval()
        assert detector(torch.zeros(1, 3, 128, 160)).pred_boxes.shape == (1, 20, 4)
