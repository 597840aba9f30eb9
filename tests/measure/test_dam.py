"""The decoder's attention map against a plain loop and against the official code's figures."""

from __future__ import annotations

import math

import pytest
import torch
from golden_files import batch_of, golden, official_detector
from torch import Tensor

from detrbench.measure import dam, protocols
from detrbench.models.dam import corr, decoder_attention_map, kept_mask
from detrbench.models.detector import Detector
from detrbench.models.trace import Trace

SIZES = [(4, 6), (2, 3)]
OFFICIAL = "sp_r50_sparse_rho0.3"


def looped(locations: list[Tensor], weights: list[Tensor], sizes: list[tuple[int, int]]) -> Tensor:
    """The definition, one point at a time."""
    maps = [torch.zeros(len(weights[0]), height, width, dtype=weights[0].dtype) for height, width in sizes]
    for layer_locations, layer_weights in zip(locations, weights):
        for b, q, m, level, p in torch.cartesian_prod(*map(torch.arange, layer_weights.shape)).tolist():
            height, width = sizes[level]
            x, y = (
                layer_locations[b, q, m, level, p, 0].item() * width,
                layer_locations[b, q, m, level, p, 1].item() * height,
            )
            for column in (math.floor(x), math.floor(x) + 1):
                for row in (math.floor(y), math.floor(y) + 1):
                    if 0 <= column < width and 0 <= row < height:
                        share = (1 - abs(x - column)) * (1 - abs(y - row))
                        maps[level][b, row, column] += layer_weights[b, q, m, level, p] * share
    return torch.cat([each.flatten(1) for each in maps], 1)


def random_attention(seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 3, 2, 2, 2)  # B, Q, M, L, P; locations from -0.3 to 1.3, so some cells lie outside
    locations = [1.6 * torch.rand(*shape, 2, generator=generator, dtype=torch.float64) - 0.3 for _ in range(2)]
    return locations, [torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(2)]


def test_map_equals_the_loop() -> None:
    locations, weights = random_attention()
    torch.testing.assert_close(decoder_attention_map(locations, weights, SIZES), looped(locations, weights, SIZES))


def test_map_has_no_half_pixel_shift() -> None:
    location = torch.tensor([2 / 6, 1 / 4]).view(1, 1, 1, 1, 1, 2)  # corner of cell (row 1, column 2)
    found = decoder_attention_map([location], [torch.ones(1, 1, 1, 1, 1)], [(4, 6)])
    assert found.argmax() == 1 * 6 + 2
    assert found.max() == pytest.approx(1)


@pytest.mark.parametrize("place", [math.nan, math.inf, -math.inf, 1e30])
def test_points_nowhere_are_dropped(place: float) -> None:
    location = torch.full((1, 1, 1, 1, 1, 2), place)
    found = decoder_attention_map([location], [torch.ones(1, 1, 1, 1, 1)], [(4, 6)])
    assert (found == 0).all()


def test_corr() -> None:
    attention = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]])
    kept = kept_mask([torch.tensor([1, 3]), torch.tensor([0])], 4)
    assert kept.tolist() == [[False, True, False, True], [True, False, False, False]]
    found = corr(attention, kept)
    assert found[0] == pytest.approx(0.6)
    assert found[1].isnan()


def test_of_the_most_attended_tokens_alone() -> None:
    found = trace([[torch.arange(30), torch.arange(20)]])
    attention = decoder_attention_map(found.sampling_locations, found.attention_weights, found.spatial_shapes)
    third, first = attention[0].topk(3).indices, attention[1, :20].topk(2).indices  # a tenth of 30 and of 20 tokens
    found.kept_tokens = [[third[1:2], first[:1]]]
    rows = dam.of_trace(found, 0.1)
    assert rows[0, 0] == pytest.approx(float(attention[0, third[1]] / attention[0, third].sum()))
    assert rows[1, 0] == pytest.approx(float(attention[1, first[0]] / attention[1, first].sum()))
    assert rows[:, 1].tolist() == pytest.approx([1 / 30, 1 / 20])
    rule = protocols.get("dam", "focus_table3")
    assert rule.top_share == 0.1
    assert "on the 10% of an image's tokens that have most of it" in rule.convention
    assert "%" not in protocols.get("dam").convention


def trace(kept: list[list[Tensor]]) -> Trace:
    locations, weights = random_attention()
    padding = torch.zeros(2, 30, dtype=torch.bool)
    padding[1, 20:] = True
    return Trace(kept, None, locations, weights, [], SIZES, padding)


def test_record_of_a_trace() -> None:
    everything = [torch.arange(30), torch.arange(30)]
    rows = dam.of_trace(trace([everything]))
    torch.testing.assert_close(rows[:, 0], torch.ones(2, dtype=torch.float64))
    half = [[torch.arange(15), torch.arange(10)], [torch.arange(5), torch.arange(5)]]  # two layers: the union counts
    rows = dam.of_trace(trace(half))
    assert rows[:, 1].tolist() == [0.5, 0.5]
    record = dam.summarise(rows.numpy(), protocols.get("dam"))
    assert record.corr.n == 2
    assert record.corr.value == pytest.approx(rows[:, 0].mean().item())
    assert record.per_level[1] == 0
    assert record.kept_fraction == 0.5


def test_level_without_attention_has_no_figure() -> None:
    nothing = dam.summarise(torch.tensor([[0.5, 0.3, 0.5, math.nan]]).numpy(), protocols.get("dam"))
    assert nothing.per_level == [0.5, None]
    assert nothing.corr.low is None


def test_figures_over_images() -> None:
    rows = torch.tensor([[0.2, 0.3, 0.1, 0.9], [0.6, 0.5, 0.3, math.nan]], dtype=torch.float64).numpy()
    found = dam.summarise(rows, protocols.get("dam"))
    assert (found.corr.value, found.corr.n, found.kept_fraction) == (pytest.approx(0.4), 2, pytest.approx(0.4))
    assert found.std == pytest.approx(0.2 * math.sqrt(2))  # of two images: each 0.2 from the mean, over n - 1
    assert found.per_level == pytest.approx([0.2, 0.9])


# ------------------------------------------------------------------------------- the official code's figures


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    """Sparse DETR with the golden's seeded weights."""
    return official_detector(OFFICIAL, tmp_path_factory.mktemp("weights"))


@pytest.mark.full  # the same at a small size: tests/models/test_small_references.py
@pytest.mark.parametrize("case", ["batch1", "batch2"])
def test_official_figures(official: Detector, case: str) -> None:
    wanted = golden(OFFICIAL)["cases"][case]["dam"]
    images, masks = batch_of(golden(OFFICIAL)["cases"][case])
    with torch.no_grad():
        found = official(images, masks, trace=True).trace
    assert found is not None
    assert found.scores is not None
    attention = decoder_attention_map(found.sampling_locations, found.attention_weights, found.spatial_shapes)
    assert attention.sum(1).tolist() == pytest.approx(wanted["sum_per_image"], rel=1e-8)
    assert attention.argmax(1).tolist() == wanted["argmax"]
    for ours, theirs in zip(attention.tolist(), wanted["first8_tokens"]):
        assert ours[:8] == pytest.approx(theirs, rel=1e-8)
    # The official Corr takes the same number of best-scored tokens in every image of the batch.
    most = max(len(tokens) for tokens in found.kept_tokens[0])
    kept = kept_mask(found.scores.topk(most, dim=1).indices, attention.shape[1])
    assert corr(attention, kept).tolist() == pytest.approx(wanted["corr_all_per_image"], rel=1e-8)
    sizes = [height * width for height, width in found.spatial_shapes]
    levels = zip(attention.split(sizes, 1), kept.split(sizes, 1), wanted["corr_per_level_per_image"])
    for level_attention, level_kept, theirs in levels:
        assert corr(level_attention, level_kept).tolist() == pytest.approx(theirs, rel=1e-8)
    if case == "batch1":  # a single image has no surplus
        assert dam.of_trace(found)[:, 0].tolist() == pytest.approx(wanted["corr_all_per_image"], rel=1e-8)
