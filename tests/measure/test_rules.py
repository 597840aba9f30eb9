"""What each counting rule makes of one operation whose multiply-adds are known by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from detrbench.measure import counters, protocols
from detrbench.measure.rules import DETREX, DETREX_SAMPLED, EVERY_OP, FVCORE, FVCORE_KEYS_APART, CountingRule
from detrbench.models import ops
from detrbench.models.ops.flops import key_aware_macs, msda_macs

RULES = (EVERY_OP, FVCORE, FVCORE_KEYS_APART, DETREX_SAMPLED, DETREX)
IMAGE = torch.zeros(1, 8, 6, 10)  # 480 numbers


def count(run: Callable[[], object], rule: CountingRule, module: nn.Module | None = None) -> float:
    counter = counters.OperationCounter(module or nn.Identity())
    with torch.no_grad(), counter.watching() as tally:
        run()
    return round(1e9 * tally.gflops(rule), 6)


@pytest.mark.parametrize(
    ("run", "costs"),
    [
        (lambda: torch.zeros(7, 3) @ torch.zeros(3, 5), (105, 105, 105, 105, 105)),
        (lambda: F.linear(torch.zeros(2, 7, 3), torch.zeros(5, 3), torch.zeros(5)), (210,) * 5),
        (lambda: torch.bmm(torch.zeros(2, 7, 3), torch.zeros(2, 3, 5)), (210,) * 5),
        (lambda: F.conv2d(IMAGE, torch.zeros(4, 2, 3, 3), padding=1, groups=4), (4 * 60 * 18,) * 5),
        (lambda: F.conv2d(IMAGE, torch.zeros(4, 8, 3, 3), stride=2, padding=1), (4 * 15 * 72,) * 5),
        (lambda: F.conv_transpose2d(IMAGE, torch.zeros(8, 4, 2, 2), stride=2), (480 * 16,) * 5),
        (lambda: F.layer_norm(IMAGE, (10,)), (2400,) * 5),
        (lambda: F.group_norm(IMAGE, 2), (2400,) * 5),
        (lambda: F.batch_norm(IMAGE, torch.zeros(8), torch.ones(8)), (960,) * 5),
        (lambda: IMAGE.softmax(-1), (2400, 0, 0, 0, 0)),
        (lambda: IMAGE.sigmoid(), (480, 0, 0, 0, 0)),
        (lambda: F.relu(IMAGE) + 1, (960, 0, 0, 0, 0)),
        (lambda: IMAGE + IMAGE[:, :1], (480, 0, 0, 0, 0)),
        (lambda: IMAGE.sum(1), (480, 0, 0, 0, 0)),
        (lambda: IMAGE.mean((2, 3)), (480, 0, 0, 0, 0)),
        (lambda: F.interpolate(IMAGE, size=(12, 20), mode="bilinear"), (7680,) * 5),
        (lambda: F.interpolate(IMAGE, size=(12, 20), mode="nearest"), (0, 1920, 1920, 1920, 1920)),
        (lambda: F.grid_sample(IMAGE, torch.zeros(1, 3, 5, 2), align_corners=False), (480, 480, 480, 480, 0)),
        (lambda: (IMAGE > 0).logical_not(), (0,) * 5),
        (lambda: torch.arange(7) * 2, (0,) * 5),
        (lambda: IMAGE.flatten(2).transpose(1, 2).contiguous(), (0,) * 5),
        (lambda: IMAGE.masked_fill(IMAGE > 0, 1.0), (0,) * 5),
        (lambda: IMAGE.flatten().topk(5), (0,) * 5),
    ],
)
def test_one_operation(run: Callable[[], Tensor], costs: tuple[float, ...]) -> None:
    assert [count(run, rule) for rule in RULES] == list(costs)


def test_frozen_batch_norm() -> None:
    norm = nn.Sequential(FrozenBatchNorm2d(8))
    assert [count(lambda: norm(IMAGE), rule, norm) for rule in RULES] == [960, 0, 0, 960, 960]


# Four heads of 6 channels, 5 queries, levels of 3 x 4 and 2 x 2, 3 points.
SHAPES, STARTS = torch.tensor([[3, 4], [2, 2]]), torch.tensor([0, 12])
VALUE, LOCATIONS, WEIGHTS = torch.zeros(2, 16, 4, 6), torch.zeros(2, 5, 4, 2, 3, 2), torch.zeros(2, 5, 4, 2, 3)
SAMPLED = 2 * 5 * 4 * 2 * 3 * 6  # channels that are interpolated


def test_deformable_attention() -> None:
    """Four corners and one weighting a sampled channel; fvcore sees no weighting, detrex's tool no compiled op."""
    run = lambda: ops.msda(VALUE, SHAPES, STARTS, LOCATIONS, WEIGHTS)  # noqa: E731
    assert [count(run, rule) for rule in RULES] == [5 * SAMPLED, 4 * SAMPLED, 4 * SAMPLED, 4 * SAMPLED, 0]
    assert count(run, protocols.get("complexity", "common").rule) == 5 * SAMPLED
    assert msda_macs(VALUE.shape, LOCATIONS.shape) == 5 * SAMPLED


@pytest.mark.parametrize("coordinates", [2, 4])
def test_attention_from_offsets_costs_what_its_steps_cost(coordinates: int) -> None:
    points = (torch.zeros(2, 5, 4, 2, 3, 2), torch.zeros(2, 5, 4, 2, 3), torch.zeros(2, 5, 2, coordinates))

    def in_steps() -> None:
        locations = ops.sampling_locations(SHAPES, points[0], points[2])
        ops.msda(VALUE, SHAPES, STARTS, locations, ops.sampling_weights(points[1]))

    for rule in RULES:
        fused = count(lambda: ops.msda_from_offsets(VALUE, SHAPES, STARTS, *points), rule)
        assert fused == count(in_steps, rule)


def test_key_aware_attention() -> None:
    """Four corners, the product with the query and the weighting a sampled channel; softmax and places a point."""
    run = lambda: ops.key_aware_attention(VALUE, SHAPES, STARTS, LOCATIONS, torch.zeros(2, 5, 4, 6))  # noqa: E731
    points = SAMPLED // 6
    assert count(run, EVERY_OP) == 6 * SAMPLED + 5 * points + 5 * points
    assert count(run, FVCORE) == 6 * SAMPLED
    assert count(run, FVCORE_KEYS_APART) == 10 * SAMPLED  # keys and values sampled one after the other
    assert key_aware_macs(VALUE.shape, LOCATIONS.shape) == 6 * SAMPLED


def test_dense_attention() -> None:
    query, key, value = torch.zeros(1, 2, 7, 4), torch.zeros(1, 2, 5, 4), torch.zeros(1, 2, 5, 3)
    run = lambda: F.scaled_dot_product_attention(query, key, value)  # noqa: E731
    assert count(run, FVCORE) == 2 * 7 * 5 * (4 + 3)
    assert count(run, EVERY_OP) >= 2 * 7 * 5 * (4 + 3) + 5 * 2 * 7 * 5


def test_which_rule_stands_for_which_table() -> None:
    rules = {name: protocol.rule for name, protocol in protocols.of("complexity").items()}
    assert (rules["common"], rules["deformable_table"], rules["sparse_table1"]) == (EVERY_OP, FVCORE, FVCORE)
    assert (rules["focus_table"], rules["lite_table"]) == (DETREX, FVCORE_KEYS_APART)
    sizes = {name: protocols.get("complexity", name).inputs.sizes() for name in ("deformable_table", "sparse_table1")}
    assert sizes == {"deformable_table": {(850, 1040): 1}, "sparse_table1": {(800, 1066): 1}}
    assert sum(protocols.get("complexity").inputs.sizes().values()) == 100


def test_rules_of_detections_are_the_papers() -> None:
    found = {name: (rule.top, rule.nms, rule.max_detections) for name, rule in protocols.of("accuracy").items()}
    assert found == {
        "common": (300, None, 100),
        "paper_top100": (100, None, 100),
        "paper_top300": (300, None, 100),
        "dac": (300, 0.8, 100),
    }


def test_thresholds_of_queries_are_those_of_the_paper() -> None:
    assert (protocols.get("queries").thresholds, protocols.get("queries").nearest) == ((0.6, 0.7, 0.8), 6)
