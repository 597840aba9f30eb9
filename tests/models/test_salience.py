"""Salience-DETR: official training in float64, its parts by hand, and the laws it obeys at a tiny size."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_by_hand import tokens
from torch import Tensor
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
from detrbench.models.checkpoints import salience as naming
from detrbench.models.encoders.salience import BackgroundEmbedding, layer_counts, level_counts
from detrbench.models.encoders.token_fusion import TokenFusion
from detrbench.models.losses import varifocal_losses
from detrbench.models.matcher import Matched
from detrbench.models.queries import best_apart
from detrbench.models.salience import salience, soft_focal_loss
from detrbench.models.targets import Objects
from detrbench.models.tokens import Prediction

NAME = "salience_detr_r50"


@pytest.mark.full
def test_training_is_the_official_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(NAME, tmp_path)
    out = check_step(training)
    recorded = training.golden["salience_targets"]
    intervals = training.detector.encoder.scale_intervals
    found = salience(out.tokens, Objects.of(training.targets, out.pred_boxes), intervals)
    assert float(found.sum()) == pytest.approx(recorded["sum"], rel=1e-9)
    for row, want in zip(found, recorded["rows"], strict=True):
        assert row.nonzero()[:, 0].tolist() == want["indices"]
        assert row[row > 0][:8].tolist() == pytest.approx(want["first8"], rel=1e-9)
    check_noised_steps(training, monkeypatch)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"background_embedding": False, "token_fusion": False},
        {"redundancy_removal": False, "class_loss": "focal"},
    ],
    ids=str,
)
def test_trains_and_ablations_do(options: dict[str, Any]) -> None:
    check_trains(tiny("salience_detr_tiny", **options))


@pytest.mark.parametrize("base", ["deformable_detr_tiny", "dac_detr_tiny", "dn_deformable_detr_tiny"])
def test_its_encoder_trains_on_every_base(base: str) -> None:
    check_trains(tiny(base, encoder="salience", layer_ratios=[1.0, 0.6, 0.2]))


def test_batch_is_single() -> None:
    check_batch_is_single(tiny("salience_detr_tiny"))


# ------------------------------------------------------------------------------------------------ filtering


def test_shares_of_levels_and_layers_are_cut_in_float32() -> None:
    assert level_counts([[2496, 624, 156, 42]], [0.4, 0.8, 1.0, 1.0]) == [[998, 499, 156, 42]]
    assert level_counts([[10, 4], [5, 0]], [0.5, 0.1]) == [[5, 1], [2, 1]]  # one token at least, on the coarsest
    assert level_counts([[90]], [0.7]) == [[63]]  # in float64 it would be 62.99...
    assert layer_counts(1695, [1.0, 0.8, 0.6, 0.6, 0.4, 0.2]) == [1695, 1356, 1017, 1017, 678, 339]
    assert layer_counts(90, [0.7]) == [63]
    assert layer_counts(3, [0.1]) == [1]


def test_all_tokens_are_updated_where_everything_is_kept() -> None:
    detector = tiny("salience_detr_tiny", level_ratios=[1.0] * 4, layer_ratios=[1.0] * 3).eval()
    with torch.no_grad():
        trace = detector(random_batch()[0], trace=True).trace
    assert {len(found) for layer in trace.kept_tokens for found in layer} == {trace.padding.shape[1]}


def padded(apart: float = 1.0) -> Any:
    """Two images, the second narrower; `apart` is how far levels differ from each other."""
    detector = tiny("salience_detr_tiny").eval()
    images, masks = random_batch()[0], torch.zeros(2, 96, 96, dtype=torch.bool)
    masks[1, :, 64:] = True
    with torch.no_grad():
        detector.neck.level_embed.mul_(apart)
        return detector(images, masks, trace=True)


def test_tokens_are_nested_off_padding_and_each_level_keeps_its_share() -> None:
    out = padded()
    trace = out.trace
    for image in range(2):
        layers = [set(layer[image].tolist()) for layer in trace.kept_tokens]
        assert all(later < earlier for earlier, later in zip(layers, layers[1:]))
        assert not trace.padding[image, list(layers[0])].any()
    starts = [0, 144, 180, 189]  # 12 x 12, 6 x 6, 3 x 3, 2 x 2 cells
    kept = trace.kept_tokens[0][0]
    level = torch.bucketize(kept, torch.tensor(starts), right=True) - 1
    assert torch.bincount(level).tolist() == [57, 28, 9, 4]
    # Best first, by the scores of all levels together.
    scores = trace.scores[0, kept]
    assert torch.equal(scores, scores.sort(descending=True).values)
    for number in range(4):
        chosen = scores[level == number]
        others = trace.by_level(trace.scores)[number][0].flatten().sort(descending=True).values[len(chosen) :]
        assert others.numel() == 0 or chosen.min() >= others.max()


def test_the_smaller_image_updates_no_more_than_its_own_number() -> None:
    out = padded()
    counts = level_counts(out.tokens.valid_by_level, [0.4, 0.8, 1.0, 1.0])
    assert [len(found) for found in out.encoded.kept_tokens[0]] == [sum(levels) for levels in counts] == [98, 67]


def test_what_is_updated_on_padding_is_in_no_trace() -> None:
    """The smaller image brings as many tokens of a level as the larger one, and these may outrank other levels'."""
    out = padded(apart=-20.0)
    padding, traced = out.tokens.padding[1], out.trace.kept_tokens
    assert padding[out.encoded.kept_tokens[0][1]].any()
    for updated, kept, chosen in zip(out.encoded.kept_tokens, traced, out.trace.object_tokens):
        assert kept[1].tolist() == [token for token in updated[1].tolist() if not padding[token]]
        assert not padding[chosen[1]].any()


# ------------------------------------------------------------------------------------------------ background, fusion


def test_only_what_the_last_layer_leaves_out_is_background() -> None:
    grid = tokens([[6, 4], [3, 2]])  # of 4 x 8 and 2 x 4 cells; what is right of it is padding
    background = BackgroundEmbedding(16, cells=8).double()
    updated = torch.tensor([[0, 9, 33]])
    found = background(grid, updated)
    assert found.shape == (1, 40, 16)
    expected = torch.zeros(40, 16, dtype=torch.float64)
    for start, (height, width), (columns, rows) in ((0, (4, 8), (6, 4)), (32, (2, 4), (3, 2))):
        for y in range(height):
            for x in range(width):
                token = start + y * width + x
                if x < columns and y < rows and token not in updated[0]:
                    expected[token] = torch.cat([background.columns[x], background.rows[y]]).detach()
    assert torch.equal(found[0].detach(), expected)


def test_a_level_with_more_cells_than_embeddings_is_refused() -> None:
    detector = tiny("salience_detr_tiny", background_cells=11).eval()
    with pytest.raises(UsageError, match=r"12 cells of 8 pixels in a row, the background embedding 11") as caught:
        detector(torch.zeros(1, 3, 64, 96))
    assert "background_cells" in str(caught.value.hint)


def test_fusion_carries_a_token_to_every_level_and_back() -> None:
    torch.manual_seed(0)
    sizes = [(8, 8), (4, 4), (2, 2)]
    fusion = TokenFusion(8, len(sizes)).double().eval()
    memory = torch.randn(1, 84, 8, dtype=torch.float64, requires_grad=True)
    for token in (0, 70, 83):  # one of each level reads all three
        (slope,) = torch.autograd.grad(fusion(memory, sizes)[0, token].sum(), memory)
        reached = slope[0].abs().sum(-1) > 0
        assert [bool(reached[part].any()) for part in (slice(64), slice(64, 80), slice(80, 84))] == [True] * 3


def test_every_parameter_of_the_fusion_learns() -> None:
    torch.manual_seed(0)
    fusion = TokenFusion(128, 2).double().train()
    fusion(torch.randn(4, 20, 128, dtype=torch.float64), [(4, 4), (2, 2)]).square().sum().backward()
    slopes = {name: float(parameter.grad.norm()) for name, parameter in fusion.named_parameters()}
    assert min(slopes.values()) > 1e-9 * max(slopes.values())


def test_the_fusion_of_a_single_image_gets_its_gradient() -> None:
    """Which PyTorch 2.14 gets wrong on the CPU; see `with_whole_gradient`."""
    torch.manual_seed(0)
    fusion = TokenFusion(32, 2).double().train()
    memory, weight = torch.randn(2, 1, 60, 32, dtype=torch.float64)
    memory.requires_grad_()
    way, sizes = torch.randn_like(memory), [(8, 6), (4, 3)]

    @torch.no_grad()
    def along(step: float) -> float:
        return float((fusion(memory + step * way, sizes) * weight).sum())

    (slope,) = torch.autograd.grad((fusion(memory, sizes) * weight).sum(), memory)
    assert float((slope * way).sum()) == pytest.approx((along(1e-5) - along(-1e-5)) / 2e-5, rel=1e-6)


def test_one_level_has_nothing_to_fuse() -> None:
    memory = torch.randn(2, 12, 8)
    assert torch.equal(TokenFusion(8, 1)(memory, [(3, 4)]), memory)


# ------------------------------------------------------------------------------------------------ queries


def apart_first(scores: Tensor, count: int) -> list[int]:
    """Of the best 4 * count tokens of 4 x 8 and 2 x 4 cells, first those that are not right beside a better one."""

    def place(token: int) -> tuple[int, int, int]:
        return (0, *divmod(token, 8)) if token < 32 else (1, *divmod(token - 32, 4))

    kept: dict[tuple[int, int, int], int] = {}
    candidates = scores.argsort(descending=True).tolist()[: 4 * count]
    for token in candidates:
        level, y, x = place(token)
        if not kept.keys() & {(level, y - 1, x), (level, y + 1, x), (level, y, x - 1), (level, y, x + 1)}:
            kept[level, y, x] = token
    return [*kept.values(), *(token for token in candidates if token not in kept.values())][:count]


@pytest.mark.parametrize("count", [3, 8, 20, 50])
def test_neighbours_of_a_better_token_come_last(count: int) -> None:
    torch.manual_seed(count)
    scores = torch.randn(3, 40)
    found = best_apart(scores, tokens([[8, 4], [4, 2]]), count)
    assert found.tolist() == [apart_first(row, count) for row in scores]


def test_only_the_best_candidates_are_looked_at() -> None:
    """Of four times as many as are wanted; then the best of these fill up, wherever others stand on their own."""
    scores = torch.arange(-80.0, 0).flip(0)
    centres = [9, 13, 41, 45]  # of 8 x 8 cells, each with its four neighbours: no five of these twenty stand apart
    arms = [centre + step for centre in centres for step in (-8, -1, 1, 8)]
    scores[centres], scores[arms] = torch.tensor([9.0, 8.0, 7.0, 6.0]), torch.arange(5.0, 1.0, -0.25)
    found = best_apart(scores[None], tokens([[8, 8], [4, 4]], [(8, 8), (4, 4)]), 5)
    assert found.tolist() == [[*centres, arms[0]]]


# ------------------------------------------------------------------------------------------------ losses


def test_salience_falls_from_the_middle_of_a_box() -> None:
    grid = tokens([[8, 4], [4, 2]], stride=8)  # 64 x 32 pixels, 4 x 8 cells of 8 and 2 x 4 of 16
    target = {"labels": torch.tensor([0]), "boxes": torch.tensor([[12 / 64, 12 / 32, 24 / 64, 24 / 32]])}
    objects = Objects.of([target], torch.zeros(1, dtype=torch.float64))
    found = salience(grid, objects, [[-1, 999], [999, 9999]])[0]
    level = found[:32].view(4, 8)
    assert level[1, 1] == 1  # x, y = 12: the middle
    assert level[1, 0].item() == pytest.approx(1 - (8 / 12) / 2)
    assert level[0, 0].item() == pytest.approx(1 - math.hypot(8 / 12, 8 / 12) / 2)
    assert torch.equal(level[:3, :3], level[:3, :3].T)
    assert not level[3].any()
    assert not level[:, 3:].any()
    assert not found[32:].any()


def test_the_nearest_middle_counts_of_boxes_of_any_size() -> None:
    """A box of another level's size raises the salience of a token, but does not make it salient."""
    grid = tokens([[8, 4], [4, 2]], stride=8)
    boxes = torch.tensor([[0.5, 0.5, 1.0, 1.0], [20 / 64, 12 / 32, 12 / 64, 12 / 32]])
    objects = Objects.of([{"labels": torch.zeros(2, dtype=torch.long), "boxes": boxes}], torch.zeros(1).double())
    found = salience(grid, objects, [[16, 99], [0, 1]])[0][:32].view(4, 8)
    assert found[1, 2] == 1  # x, y = 20, 12: in the middle of the small box, and the large one is of this level
    small_alone = salience(grid, objects, [[0, 16], [0, 1]])[0][:32].view(4, 8)
    assert small_alone.nonzero().tolist() == [[1, 2]]


def test_the_farthest_side_is_within_the_interval_above_its_least_up_to_its_most() -> None:
    grid = tokens([[8, 4], [4, 2]], stride=8)
    target = {"labels": torch.tensor([0]), "boxes": torch.tensor([[12 / 64, 12 / 32, 24 / 64, 24 / 32]])}
    objects = Objects.of([target], torch.zeros(1, dtype=torch.float64))
    count = lambda least, most: int((salience(grid, objects, [[least, most], [0, 1]]) > 0).sum())  # noqa: E731
    # Of the nine cells inside, the middle one is 12 from the farthest side, the eight others 20.
    assert (count(-1, 12), count(12, 20), count(12, 19.9), count(11.9, 99)) == (1, 8, 0, 9)


def test_cells_are_as_large_as_the_image_over_their_number() -> None:
    detector = tiny("salience_detr_tiny")
    found = detector.neck(detector.backbone(torch.zeros(1, 3, 100, 84)), None, (100, 84))
    objects = Objects.of([{"labels": torch.tensor([0]), "boxes": torch.tensor([[0.5, 0.5, 1.0, 1.0]])}], torch.zeros(1))
    level = salience(found, objects, [[-1, 9999]] * 4)[0, : 13 * 11].view(13, 11)
    assert level[6, 5].item() == pytest.approx(1)  # 13 rows of 100 / 13 pixels: the seventh lies in the middle


def test_soft_focal_loss() -> None:
    logits, wanted = torch.tensor([0.3, -1.2, 2.0]), torch.tensor([0.0, 0.7, 1.0])
    expected = []
    for x, t in zip(logits.tolist(), wanted.tolist()):
        p = 1 / (1 + math.exp(-x))
        weight = 0.25 * (1 - p) ** 2 * t + 0.75 * p**2 * (1 - t)
        expected.append(-weight * (t * math.log(p) + (1 - t) * math.log(1 - p)))
    assert soft_focal_loss(logits, wanted).tolist() == pytest.approx(expected, rel=1e-5)


def test_varifocal_loss() -> None:
    logits = torch.tensor([[[[0.5, -1.0], [1.5, 0.2]]]], dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([[[[0.5, 0.5, 0.4, 0.4], [0.2, 0.2, 0.1, 0.1]]]], dtype=torch.float64, requires_grad=True)
    objects = Objects.of(
        [{"labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.4, 0.2]])}], torch.zeros(1).double()
    )
    query = torch.zeros(1, 1, 1, dtype=torch.long)
    matched = Matched(Prediction(logits, boxes), objects, query, torch.ones_like(query, dtype=torch.bool))
    losses = varifocal_losses(matched, 2.0)
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    pushed = sum(-0.75 * sigmoid(x) ** 2 * math.log(1 - sigmoid(x)) for x in (0.5, 1.5, 0.2))
    p, overlap = sigmoid(-1.0), 0.5
    pulled = -overlap * (overlap * math.log(p) + (1 - overlap) * math.log(1 - p))
    assert losses["loss_ce"].item() == pytest.approx((pushed + pulled) / 2)
    (slope,) = torch.autograd.grad(losses["loss_ce"].sum(), logits, retain_graph=True)
    # Weights are given, so what is left is the slope of the entropy: p minus what is wanted.
    assert slope[0, 0, 0, 1].item() == pytest.approx(overlap * (p - overlap) / 2)
    assert slope[0, 0, 1, 0].item() == pytest.approx(0.75 * sigmoid(1.5) ** 3 / 2)
    (none,) = torch.autograd.grad(losses["loss_ce"].sum(), boxes, allow_unused=True)
    assert none is None
    assert losses["loss_giou"].item() == pytest.approx(0.25)


# ------------------------------------------------------------------------------------------------ names


def test_factors_of_the_modulation_are_counted_by_level_there() -> None:
    state = {"transformer.level_filter_ratio": torch.ones(4), "transformer.alpha": torch.tensor([1.0, 2.0, 3.0])}
    assert naming.ADAPTER.recognises(state)
    translated, ignored = naming.ADAPTER.translate(state, models.create("salience_detr_tiny"))
    assert translated["encoder.selector.alpha"].tolist() == [3, 2, 1]
    assert ignored == ["transformer.level_filter_ratio"]


def test_what_carries_no_weight_is_left_out_and_nothing_else() -> None:
    names = (
        "_classes_",
        "position_embedding.dim_tx",
        "transformer.neck.pan_blocks.0.bottlenecks.1.se_module.conv_mask.bias",
    )
    more = ("transformer.neck.pan_blocks.0.bottlenecks.1.conv1.1.num_batches_tracked", "transformer.unheard_of")
    detector = models.create("salience_detr_tiny")
    translated, ignored = naming.ADAPTER.translate(dict.fromkeys((*names, *more), torch.zeros(())), detector)
    assert tuple(ignored) == names
    assert set(translated) == {
        "encoder.fusion.bottom_up.0.blocks.1.wide.1.num_batches_tracked",
        "transformer.unheard_of",
    }
