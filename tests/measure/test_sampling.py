"""Deformable attention in the ways in which it is written elsewhere: equal work counts equally."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from detrbench.measure import counters
from detrbench.measure.rules import DETREX, DETREX_SAMPLED, EVERY_OP, FVCORE
from detrbench.measure.tally import Tally
from detrbench.models import ops

N, Q, M, D, P = 2, 7, 2, 4, 3
SHAPES = [(4, 5), (2, 3)]
S = sum(height * width for height, width in SHAPES)
CHANNELS = N * Q * M * len(SHAPES) * P * D  # that are sampled


class Op(nn.Module):
    def forward(self, value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        shapes = torch.tensor(SHAPES)
        starts = torch.tensor([0, 20])
        return ops.msda(value, *(each.to(value.device) for each in (shapes, starts)), locations, weights)


class WrittenOut(nn.Module):
    """As the plain fallbacks: by level; the product with the weights, and the sum over levels and points."""

    def forward(self, value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        values = value.split([height * width for height, width in SHAPES], dim=1)
        grids, sampled = 2 * locations - 1, []
        for level, (height, width) in enumerate(SHAPES):
            image = values[level].flatten(2).transpose(1, 2).reshape(N * M, D, height, width)
            grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
            sampled.append(F.grid_sample(image, grid, align_corners=False))
        weights = weights.transpose(1, 2).reshape(N * M, 1, Q, len(SHAPES) * P)
        return (torch.stack(sampled, dim=-2).flatten(-2) * weights).sum(-1).view(N, M * D, Q).transpose(1, 2)


class InOnePiece(nn.Module):
    """As RT-DETRv2 and D-FINE: points of all levels behind each other, levels joined at their end."""

    def forward(self, value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        values = value.permute(0, 2, 3, 1).flatten(0, 1).split([height * width for height, width in SHAPES], dim=-1)
        grids = (2 * locations.flatten(3, 4) - 1).permute(0, 2, 1, 3, 4).flatten(0, 1).split([P, P], dim=-2)
        sampled = [
            F.grid_sample(each.reshape(N * M, D, *shape), grid, align_corners=False)
            for each, shape, grid in zip(values, SHAPES, grids)
        ]
        weights = weights.flatten(3).permute(0, 2, 1, 3).reshape(N * M, 1, Q, len(SHAPES) * P)
        return (torch.concat(sampled, dim=-1) * weights).sum(-1).view(N, M * D, Q).transpose(1, 2)


class MSDeformAttnFunction(torch.autograd.Function):
    """Called and named as the official one; what it computes is no matter."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, *further: Any) -> Tensor:
        raise RuntimeError("not compiled for this device")


class Compiled(nn.Module):
    def forward(self, value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        starts = torch.zeros(2, dtype=torch.int64)
        return MSDeformAttnFunction.apply(value, torch.tensor(SHAPES), starts, locations, weights, 64)


def tally_of(module: nn.Module, device: str, *inputs: Tensor) -> Tally:
    counter = counters.OperationCounter(nn.Sequential(module).to(device))
    with torch.no_grad(), counter.watching() as tally:
        module(*(each.to(device) for each in inputs))
    return tally


def inputs() -> list[Tensor]:
    value, locations = torch.rand(N, S, M, D), torch.rand(N, Q, M, len(SHAPES), P, 2)
    return [value, locations, torch.rand(N, Q, M, len(SHAPES), P)]


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("written", [WrittenOut, InOnePiece, Compiled])
def test_equal_work_counts_equally(written: Callable[[], nn.Module], device: str) -> None:
    ours, theirs = tally_of(Op(), "meta", *inputs()), tally_of(written(), device, *inputs())
    for rule in (EVERY_OP, FVCORE, DETREX, DETREX_SAMPLED):
        assert theirs.gflops(rule) == pytest.approx(ours.gflops(rule), abs=0), rule.name
    assert theirs.gflops(EVERY_OP) * 1e9 == pytest.approx(5 * CHANNELS)
    assert not {"aten::mul", "aten::sub"} & set(theirs.uncounted(EVERY_OP))


@pytest.mark.parametrize("written", [WrittenOut, InOnePiece])
def test_both_ways_give_the_same_as_the_op(written: Callable[[], nn.Module]) -> None:
    given = inputs()
    assert torch.allclose(Op()(*given), written()(*given), atol=1e-6)


def test_layers_that_are_remembered_count_as_those_that_run() -> None:
    """The product and the sum stand outside of the module that samples: then nothing is folded, in any layer."""

    class Samples(nn.Module):
        def forward(self, image: Tensor, grid: Tensor) -> Tensor:
            return F.grid_sample(image, grid, align_corners=False)

    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Sequential(), nn.Sequential()])
            self.samples = nn.ModuleList([nn.ModuleList([Samples()]), nn.ModuleList([Samples()])])

        def forward(self, image: Tensor, grid: Tensor, weights: Tensor) -> list[Tensor]:
            return [(each[0](image, grid) * weights).sum(-1) for each in self.samples]

    image, grid, weights = torch.rand(1, 3, 4, 4), torch.rand(1, 5, 6, 2), torch.rand(1, 1, 5, 6)
    tally = tally_of(Layers(), "meta", image, grid, weights)
    assert tally.gflops(EVERY_OP) * 1e9 == pytest.approx(2 * (4 + 1 + 1) * 3 * 5 * 6)


def test_arithmetic_that_is_no_part_of_a_sampling_stays() -> None:
    class Other(nn.Module):
        def forward(self, image: Tensor, grid: Tensor) -> Tensor:
            scaled = 2 * grid - 1  # read twice, by a sampling and by something else
            sampled = F.grid_sample(image, scaled, align_corners=False)
            return (sampled * 3.0).sum() + (image * image).sum() + sampled.mul(sampled).amax() + scaled.sum()

    tally = tally_of(Other(), "meta", torch.rand(1, 3, 4, 4), torch.rand(1, 5, 6, 2))
    kinds: Counter[str] = Counter()
    for (_, _, kind), units in tally.units.items():
        kinds[kind] += units
    samples, pixels, places = 3 * 5 * 6, 3 * 4 * 4, 5 * 6 * 2
    assert kinds["grid_sample"] == samples
    assert kinds["elementwise"] == 2 * samples + pixels + 3  # both products of samples, the square, three sums of four
    assert kinds["reduction"] == samples + pixels + places


@pytest.mark.parametrize("masked", [False, True])
def test_deformable_convolution_by_hand(masked: bool) -> None:
    class Convolution(nn.Module):
        def forward(self, image: Tensor, offsets: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
            return deform_conv2d(image, offsets, weight, padding=1, mask=mask if masked else None)

    image, weight = torch.rand(1, 4, 6, 5), torch.rand(8, 4, 3, 3)
    tally = tally_of(Convolution(), "cpu", image, torch.rand(1, 18, 6, 5), weight, torch.rand(1, 9, 6, 5))
    samples = 6 * 5 * 4 * 9
    convolution = 6 * 5 * 8 * 4 * 9
    assert tally.gflops(EVERY_OP) * 1e9 == pytest.approx(convolution + (5 if masked else 4) * samples)
