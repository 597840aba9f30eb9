"""A forward without padding is queued without a pause: nothing waits for the device or is copied to it."""

from __future__ import annotations

import pytest
import torch
from benchmark_scripts import script
from families import FAMILIES, small

waits = script("waits")
# How many tokens its suppression of neighbours leaves only the scores tell.
WAITING = {"salience_detr": ["nms at models/queries.py"]}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cuda_graph_can_hold_the_forward(family: str) -> None:
    detector = waits.far(small(family, 5).eval())
    images = waits.far(torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad(), waits.Waits() as counted:
        detector(images, None)
    assert [place.rpartition(":")[0] for place in counted.by_place.elements()] == WAITING.get(family, [])
    assert not counted.uploads


def test_what_would_keep_a_forward_out_of_a_graph_is_seen() -> None:
    values, mask = waits.far(torch.arange(4.0)), waits.far(torch.arange(4) > 1)
    with waits.Waits() as counted:
        values.masked_fill(mask, 0.0)
        assert not counted.total
        values.masked_fill(mask, values.min())
        torch.arange(4.0).to(waits.DEVICE, non_blocking=True)
        assert (counted.total, counted.uploads.total()) == (1, 1)
        torch.tensor([1, 2], device=waits.DEVICE)
        values.copy_(torch.zeros(4))
        assert (counted.total, counted.uploads.total()) == (3, 3)
        values.cpu()
        assert (counted.total, counted.uploads.total()) == (4, 3)
