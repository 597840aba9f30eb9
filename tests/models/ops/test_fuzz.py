"""Random calls of the operations: valid ones against the reference in float64, damaged ones must be refused.

A call follows from its seed alone. What fails is made smaller as long as it still fails, and printed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest
import torch
from op_cases import (
    TOLERANCE,
    Case,
    assert_close,
    gradients,
    inputs,
    key_aware_gradients,
    key_aware_inputs,
    true_gradients,
    true_key_aware,
    true_key_aware_gradients,
    true_output,
)
from torch import Tensor

from detrbench.models import ops

BLOCK, CALLS = 250, 10_000  # calls of one test; of all of them
BLOCKS = [
    pytest.param(range(40), id="some"),
    *(
        pytest.param(range(first, first + BLOCK), id=f"from-{first}", marks=pytest.mark.full)
        for first in range(BLOCK, CALLS + BLOCK, BLOCK)
    ),
]


def drawn(seed: int) -> tuple[Case, torch.dtype]:
    """Sizes and type of a call; a few are empty, and few are large."""
    draw = random.Random(seed)
    levels = tuple(
        (draw.randint(draw.random() > 0.05, 9), draw.randint(1, 9))
        for _ in range(draw.choice((1, 2, 2, 3, 17) if draw.random() < 0.2 else (1, 2, 3)))
    )
    case = Case(
        f"seed {seed}",
        levels,
        images=draw.choice((1, 1, 2)),
        queries=draw.choice((0, 1, 1, 3, 7, 7, 40)),
        heads=draw.choice((1, 2, 3, 8)),
        depth=draw.choice((1, 2, 4, 7, 8, 16, 32, 33, 130)),
        points=draw.choice((1, 2, 3, 4, 9)),
    )
    return case, draw.choice(list(TOLERANCE))


def check(case: Case, dtype: torch.dtype, seed: int) -> None:
    """Raise AssertionError unless both operations and their gradients are the reference's."""
    generator = torch.Generator().manual_seed(seed)
    shape = (case.images, case.queries, case.heads * case.depth)
    grad_output = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    arguments = inputs(case, dtype, seed=seed)
    assert_close(ops.msda(*arguments), true_output(arguments), TOLERANCE[dtype])
    for found, truth in zip(gradients(arguments, grad_output), true_gradients(grad_output, arguments), strict=True):
        assert_close(found, truth, 2 * TOLERANCE[dtype])
    arguments = key_aware_inputs(case, dtype, seed=seed)
    for found, truth in zip(ops.key_aware_attention(*arguments), true_key_aware(arguments), strict=True):
        assert_close(found, truth, 2 * TOLERANCE[dtype])
    truths = true_key_aware_gradients(grad_output, arguments)
    for found, truth in zip(key_aware_gradients(arguments, grad_output), truths, strict=True):
        assert_close(found, truth, 2 * TOLERANCE[dtype])


def smaller(case: Case) -> Iterator[Case]:
    """Cases with one size less."""
    for name in ("images", "queries", "heads", "depth", "points"):
        size = getattr(case, name)
        for less in sorted({1, size // 2, size - 1}):
            if 0 < less < size:
                yield replace(case, **{name: less})
    for index in range(len(case.levels) if len(case.levels) > 1 else 0):
        yield replace(case, levels=case.levels[:index] + case.levels[index + 1 :])


def smallest(case: Case, fails: Callable[[Case], bool]) -> Case:
    """The case, with each size made as small as it can be made alone while it still fails."""
    while (found := next(filter(fails, smaller(case)), None)) is not None:
        case = found
    return case


def fails(case: Case, dtype: torch.dtype, seed: int) -> bool:
    try:
        check(case, dtype, seed)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("seeds", BLOCKS)
def test_random_calls_are_the_references(seeds: range) -> None:
    for seed in seeds:
        case, dtype = drawn(seed)
        if fails(case, dtype, seed):
            case = smallest(case, partial(fails, dtype=dtype, seed=seed))
            check(case, dtype, seed)
            pytest.fail(f"not the same twice: check({case!r}, {dtype}, {seed})")


DAMAGES: dict[str, Callable[[Tensor], object]] = {
    "a dimension less": lambda t: t[0],
    "a dimension more": lambda t: t[None],
    "one more": lambda t: torch.cat([t, t.narrow(min(1, t.dim() - 1), 0, 1)], min(1, t.dim() - 1)),
    "one less": lambda t: t[1:] if len(t) > 1 else t[:0].unsqueeze(0),
    "numbers of another kind": lambda t: t.to(torch.int16),
    "complex": lambda t: t.to(torch.complex64),
    "eight bits": lambda t: t.to(torch.float8_e5m2),
    "on no device": lambda t: t.to("meta"),
    "sparse": lambda t: t.to_sparse(),
    "a list": lambda t: t.tolist(),
    "nothing": lambda t: None,
}
WRONG_LEVELS: dict[str, Callable[[Tensor], Tensor]] = {
    "negative": lambda t: -1 - t,
    "larger": lambda t: t + 1,
    "far away": lambda t: t + (1 << 40),
    "huge": lambda t: t + ((1 << 63) - 1 - t),
}


@pytest.mark.parametrize("seeds", BLOCKS)
def test_damaged_calls_are_refused(seeds: range) -> None:
    for seed in seeds:
        case, dtype = drawn(seed)
        draw = random.Random(-1 - seed)
        make, operation, raw = draw.choice(
            [
                (inputs, ops.msda, torch.ops.detrbench.msda.default),
                (key_aware_inputs, ops.key_aware_attention, torch.ops.detrbench.key_aware_attention.default),
            ]
        )
        arguments: list[object] = list(make(replace(case, queries=max(case.queries, 1)), dtype, seed=seed))
        index = draw.randrange(5)
        name, damage = draw.choice(list(({**DAMAGES, **WRONG_LEVELS} if index in (1, 2) else DAMAGES).items()))
        arguments[index] = damage(arguments[index])  # type: ignore[arg-type]
        for function in (operation, raw):
            try:
                function(*arguments)
            except (TypeError, ValueError, RuntimeError):
                continue
            pytest.fail(f"{function}: argument {index} was damaged ({name}) and taken: {case!r}, {dtype}, seed {seed}")


def test_what_fails_is_made_smaller() -> None:
    large = Case("large", ((5, 7), (3, 3), (2, 2)), images=2, queries=40, heads=8, depth=33, points=9)
    found = smallest(large, lambda case: case.depth > 4 and (3, 3) in case.levels)
    assert found == replace(large, levels=((3, 3),), images=1, queries=1, heads=1, depth=5, points=1)
