"""`detector`: one of every kind that a test may train and freeze, since the next one finds it as it was made."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
from test_laws import NAMES, small, with_slow

from detrbench.models.detector import Detector

_made = functools.cache(small)


@pytest.fixture(params=with_slow(NAMES))
def detector(request: pytest.FixtureRequest) -> Iterator[Detector]:
    found = _made(request.param)
    trained = [parameter.requires_grad for parameter in found.parameters()]
    yield found
    found.eval().zero_grad()
    for parameter, wants_gradient in zip(found.parameters(), trained, strict=True):
        parameter.requires_grad_(wants_gradient)
