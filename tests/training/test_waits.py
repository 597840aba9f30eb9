"""A training step hardly waits for its device: three times at most, four where queries are to stand apart."""

from __future__ import annotations

import pytest
import torch
from benchmark_scripts import script
from families import small

from detrbench.data.loading import Batch
from detrbench.training import optimiser
from detrbench.training.recipe import Recipe
from detrbench.training.step import Part, train_step

waits = script("waits")
# One for each encoder, kind of query and training part; the others are made of the same parts.
FAMILIES = {
    "dac_detr": ["matcher"],
    "deformable_detr": ["matcher"],
    "dn_deformable_detr": ["matcher"],
    "focus_detr": ["matcher", "tokens"],
    "h_detr": ["matcher"],
    "lite_dino": ["matcher"],
    "ms_detr": ["matcher"],
    "salience_detr": ["matcher", "queries", "tokens"],
    "rt_detr": ["matcher"],
    "sparse_detr": ["matcher", "tokens"],
}


def padded_batch(height: int = 64, width: int = 96, dtype: torch.dtype = torch.float32, padded: bool = True) -> Batch:
    """Three images of the host, two of them padded, one without objects."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(3, height, width, dtype=torch.bool)
    masks[1:, :, -32:] = padded
    targets = [
        {
            "labels": torch.randint(0, 5, (count,), generator=generator),
            "boxes": (torch.rand(count, 4, generator=generator) * 0.3 + 0.3).to(dtype),
        }
        for count in (3, 0, 2)
    ]
    images = torch.randn(3, 3, height, width, generator=generator).to(dtype)
    return Batch(images, masks, targets, [1, 2, 3], torch.tensor([[height, width]] * 3))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_waits_for_costs_for_figures_and_where_tokens_are_counted(family: str) -> None:
    """The assignment is made on the host, figures are shown there, and a share of the tokens decides on shapes."""
    detector = waits.far(small(family, 5).train())
    optim = optimiser.build(detector, Recipe())
    with waits.Waits() as counted:
        train_step(detector, optim, Part.of([padded_batch()]), 0.1, 1.0)
    places = sorted(place.split(" at ")[1].split(":")[0] for place in counted.by_place.elements())
    assert places == ["detrbench/training/step.py", *(f"models/{name}.py" for name in FAMILIES[family])]
