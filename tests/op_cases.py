"""Shapes and inputs that the sampled operations are tested on, on every device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from detrbench.models import ops
from detrbench.models.ops.reference import (
    key_aware_backward_reference,
    key_aware_reference,
    msda_backward_reference,
    msda_reference,
    sampling_locations,
    sampling_weights,
)


@dataclass(frozen=True)
class Case:
    """The sizes of one call; `levels` holds (height, width)."""

    name: str
    levels: tuple[tuple[int, int], ...]
    images: int = 1
    queries: int = 6
    heads: int = 2
    depth: int = 32
    points: int = 4


PYRAMID = ((12, 9), (6, 5), (3, 3), (2, 1))
CASES = [
    Case("as in the detectors", PYRAMID, images=2, queries=30, heads=8),
    Case("many queries on few tokens", ((5, 7), (3, 4)), images=2, queries=200, heads=3),
    Case("as many queries as tokens", ((9, 7), (4, 5), (1, 3)), images=2, queries=86, heads=3),
    Case("few queries on many tokens", ((40, 30), (20, 15)), queries=3, heads=4),
    Case("one channel", ((5, 7), (3, 4)), images=2, depth=1),
    Case("three channels", ((5, 7), (3, 4)), depth=3),
    Case("eight channels", PYRAMID, depth=8),
    Case("48 channels", PYRAMID, depth=48),
    Case("64 channels", PYRAMID, depth=64),
    Case("65 channels", ((5, 7), (3, 4)), depth=65, points=3),
    Case("200 channels", ((5, 7),), depth=200, points=5),
    Case("130 channels, few queries", PYRAMID, queries=3, depth=130, heads=1),
    Case("one of everything", ((1, 1),), queries=1, heads=1, depth=1, points=1),
    Case("one level, 17 points", ((9, 7),), points=17),
    Case("more tokens than a block has slots", ((40, 30), (20, 15)), queries=200, heads=1),
    Case("an odd count of points", ((4, 4), (3, 2), (2, 2)), points=3),
    Case("17 levels", ((3, 2),) * 17, points=2),
    Case("empty levels", ((5, 7), (0, 4), (2, 2), (3, 0)), points=2),
    Case("only empty levels", ((0, 4), (3, 0))),
    Case("no points", ((5, 7),), points=0),
    Case("no queries", PYRAMID, queries=0),
    Case("no images", PYRAMID, images=0),
    Case("no channels", PYRAMID, depth=0),
]
IDS = [case.name for case in CASES]
TINY = Case("tiny", ((4, 3), (2, 2)), images=1, queries=3, depth=3, points=2)

# Largest error as a share of the largest value: of the sums, then of the rounding to the type.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
TYPES = list(TOLERANCE)


def level_tensors(levels: tuple[tuple[int, int], ...]) -> tuple[Tensor, Tensor]:
    """spatial_shapes and level_start_index."""
    shapes = torch.tensor(levels, dtype=torch.int64).view(-1, 2)
    areas = shapes.prod(1)
    return shapes, areas.cumsum(0) - areas


def inputs(case: Case, dtype: torch.dtype = torch.float64, device: str = "cpu", seed: int = 0) -> list[Tensor]:
    """Arguments of `ops.msda`; some locations lie outside."""
    generator = torch.Generator().manual_seed(seed)
    shapes, starts = level_tensors(case.levels)
    layout = (case.images, case.queries, case.heads, len(case.levels), case.points)
    value = torch.randn(
        case.images, int(shapes.prod(1).sum()), case.heads, case.depth, generator=generator, dtype=torch.float64
    )
    locations = torch.rand(*layout, 2, generator=generator, dtype=torch.float64) * 1.4 - 0.2
    weights = torch.rand(*layout, generator=generator, dtype=torch.float64)
    return [tensor.to(device) for tensor in (value.to(dtype), shapes, starts, locations.to(dtype), weights.to(dtype))]


def key_aware_inputs(
    case: Case, dtype: torch.dtype = torch.float64, device: str = "cpu", seed: int = 0
) -> list[Tensor]:
    """Arguments of `ops.key_aware_attention`; some locations lie outside."""
    generator = torch.Generator().manual_seed(seed + 1)
    layout = (case.images, case.queries, case.heads, case.depth)
    query = torch.randn(*layout, generator=generator, dtype=torch.float64)
    return [*inputs(case, dtype, device, seed)[:4], query.to(dtype).to(device)]


def at_a_centre(locations: Tensor, shapes: Tensor) -> Tensor:
    """Which coordinates are so near to a pixel's centre that rounding chooses the side of a gradient's jump."""
    pixels = locations.double() * shapes.flip(-1)[:, None] - 0.5
    return (pixels - pixels.round()).abs() < 1e-3


def from_offsets_inputs(
    case: Case, dtype: torch.dtype = torch.float64, device: str = "cpu", seed: int = 0, coordinates: int = 2
) -> list[Tensor]:
    """Arguments of `ops.msda_from_offsets`, around points (2 coordinates) or boxes (4); some locations lie outside, and
    none on the centre of a pixel, where the gradient jumps and rounding would choose its side.
    """
    generator = torch.Generator().manual_seed(seed + 2)
    layout = (case.images, case.queries, case.heads, len(case.levels), case.points)
    offsets = torch.randn(*layout, 2, generator=generator, dtype=torch.float64) * 1.5
    logits = torch.randn(*layout, generator=generator, dtype=torch.float64) * 2
    references = torch.rand(
        case.images, case.queries, len(case.levels), coordinates, generator=generator, dtype=torch.float64
    )
    value, shapes, starts = inputs(case, dtype, seed=seed)[:3]
    references, offsets = (references * 1.2 - 0.1).to(dtype), offsets.to(dtype)
    locations = sampling_locations(shapes, offsets.double(), references.double())
    offsets = torch.where(at_a_centre(locations, shapes), offsets + 0.37, offsets)
    return [tensor.to(device) for tensor in (value, shapes, starts, offsets, logits.to(dtype), references)]


def off_pixels(arguments: list[Tensor]) -> list[Tensor]:
    """The arguments with no location near a pixel's centre, where rounding chooses the side of a gradient's jump."""
    value, shapes, starts, locations, *others = arguments
    sizes = shapes.flip(-1)[:, None].to(locations.dtype)
    pixels = locations.double() * sizes.double() - 0.5
    moved = torch.where(
        (pixels - pixels.round()).abs() < 1e-3, locations + (0.37 / sizes).to(locations.dtype), locations
    )
    return [value, shapes, starts, moved, *others]


def exactly(arguments: list[Tensor]) -> list[Tensor]:
    """The same numbers in float64 on the CPU."""
    return [tensor.cpu().double() if tensor.is_floating_point() else tensor.cpu() for tensor in arguments]


def true_output(arguments: list[Tensor]) -> Tensor:
    """What the reference gives in float64."""
    return msda_reference(*exactly(arguments))


def true_gradients(grad_output: Tensor, arguments: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """What the reference gives in float64 for value, locations and weights."""
    return msda_backward_reference(grad_output.cpu().double(), *exactly(arguments))


def unfused(arguments: list[Tensor], sampled: Callable[..., Tensor] = msda_reference) -> Tensor:
    """What `ops.msda_from_offsets` computes, with locations and weights made first; differentiable."""
    value, shapes, starts, offsets, logits, reference_points = arguments
    locations = sampling_locations(shapes, offsets, reference_points)
    return sampled(value, shapes, starts, locations, sampling_weights(logits))


def leaves_of(arguments: list[Tensor]) -> list[Tensor]:
    """Copies, of which those with a floating point ask for a gradient."""
    return [tensor.detach().clone().requires_grad_(tensor.is_floating_point()) for tensor in arguments]


def true_from_offsets_gradients(grad_output: Tensor, arguments: list[Tensor]) -> tuple[Tensor, ...]:
    """What the reference gives in float64 for value, offsets, logits and reference points."""
    leaves = leaves_of(exactly(arguments))
    return torch.autograd.grad(
        unfused(leaves), [leaves[0], *leaves[3:]], grad_output.cpu().double(), materialize_grads=True
    )


def from_offsets_gradients(arguments: list[Tensor], grad_output: Tensor) -> tuple[Tensor, ...]:
    """Gradients of value, offsets, logits and reference points, as autograd gives them."""
    leaves = leaves_of(arguments)
    return torch.autograd.grad(ops.msda_from_offsets(*leaves), [leaves[0], *leaves[3:]], grad_output)


def true_key_aware(arguments: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Output and weights that the reference gives in float64."""
    return key_aware_reference(*exactly(arguments))


def true_key_aware_gradients(grad_output: Tensor, arguments: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """What the reference gives in float64 for value, locations and query."""
    return key_aware_backward_reference(grad_output.cpu().double(), *exactly(arguments))


def gradients(arguments: list[Tensor], grad_output: Tensor) -> tuple[Tensor, ...]:
    """Gradients of value, sampling locations and attention weights, as autograd gives them."""
    value, shapes, starts, locations, weights = arguments
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (value, locations, weights)]
    return torch.autograd.grad(ops.msda(leaves[0], shapes, starts, leaves[1], leaves[2]), leaves, grad_output)


def key_aware_gradients(arguments: list[Tensor], grad_output: Tensor) -> tuple[Tensor, ...]:
    """Gradients of value, sampling locations and query, as autograd gives them."""
    value, shapes, starts, locations, query = arguments
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (value, locations, query)]
    output, _ = ops.key_aware_attention(leaves[0], shapes, starts, leaves[1], leaves[2])
    return torch.autograd.grad(output, leaves, grad_output)


def assert_close(found: Tensor, truth: Tensor, tolerance: float) -> None:
    """Raise unless shapes agree and no element is off by more than a share of the largest one."""
    assert found.shape == truth.shape
    if truth.numel():
        worst = float((found.cpu().double() - truth).abs().max())
        assert worst <= tolerance * max(float(truth.abs().max()), 1e-3), f"off by {worst}"
