"""Building detectors by name, and what is said where that cannot work."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from detrbench import models
from detrbench.errors import UsageError


def test_listing_and_resolving_import_no_torch() -> None:
    code = (
        "import sys; from detrbench import models; models.names(); models.resolve('sparse_detr_r50', {}); "
        "[models.describe(n).doc for n in models.names()]; models.all_parts(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("name", "overrides", "message", "hint"),
    [
        ("sparse_detr_r5", {}, "unknown model 'sparse_detr_r5'", "did you mean 'sparse_detr_r50'"),
        ("sparse_detr_r50", {"keep_ration": 0.3}, "unknown option 'keep_ration'", "did you mean 'keep_ratio'"),
        ("sparse_detr_r50", {"encoder": "spars"}, "unknown encoder 'spars'", "did you mean 'sparse'"),
        ("deformable_detr_r50", {"keep_ratio": 0.3}, "'keep_ratio' belongs to encoder 'sparse'", "choose that part"),
        ("deformable_detr_r50", {"source": "detectron"}, "unknown source", "known:"),
        ("deformable_detr_r50", {"num_queries": "many"}, "expected a whole number, 1 or more, got", "object queries"),
        ("sparse_detr_r50", {"keep_ratio": True}, "expected a number above 0 and at most 1, got True", "share"),
    ],
)
def test_mistakes_are_named(name: str, overrides: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        models.resolve(name, overrides)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_name_or_base_is_needed() -> None:
    with pytest.raises(UsageError, match="name or base"):
        models.create()


def test_another_part_for_a_kind() -> None:
    spec = models.resolve("deformable_detr_r50", {"encoder": "sparse", "keep_ratio": 0.2, "backbone": "tiny"})
    assert spec.parts["encoder"] == "sparse"
    assert spec.options["keep_ratio"] == 0.2
    assert "frozen_stages" not in spec.options


def test_base_takes_any_backbone() -> None:
    detector = models.create(base="sparse_detr", backbone="tiny", width=8, hidden_dim=32)
    assert detector.spec.parts["backbone"] == "tiny"
    assert list(detector.parts) == ["backbone", "neck", "encoder", "queries", "decoder", "heads"]


def test_every_variant_says_where_it_comes_from() -> None:
    for name in models.names():
        variant = models.describe(name)
        assert variant.summary
        assert len(variant.doc) > 60


def test_what_dino_has_of_its_own() -> None:
    """IDEA-Research/DINO's configuration: 900 queries, positions of temperature 20, logits kept 1e-3 off the border."""
    options = models.resolve("dino_r50", {}).options
    assert {name: options[name] for name in ("num_queries", "position_temperature", "logit_eps", "iou_eps")} == {
        "num_queries": 900,
        "position_temperature": 20,
        "logit_eps": 1e-3,
        "iou_eps": 1e-6,
    }


def test_wrong_input_is_refused() -> None:
    import torch

    detector = models.create("deformable_detr_tiny", hidden_dim=32, width=8)
    with pytest.raises(UsageError, match=r"expected float \(B, 3, H, W\)"):
        detector(torch.zeros(1, 1, 64, 64))
    for masks in (torch.zeros(1, 64, 64), torch.zeros(1, 64, 32, dtype=torch.bool), torch.zeros(2, 64, 64).bool()):
        with pytest.raises(UsageError, match="True on padding"):
            detector(torch.zeros(1, 3, 64, 64), masks)
