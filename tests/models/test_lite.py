"""Lite DETR: official training in float64, and the laws it obeys at a tiny size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
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
from detrbench.models import ops

NAME = "lite_dino_H3L1_2p1x3_kda"


@pytest.mark.full
def test_training_is_the_official_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(NAME, tmp_path)
    check_step(training)
    check_noised_steps(training, monkeypatch)


@pytest.mark.parametrize("name", ["lite_dino_tiny", "lite_deformable_detr_tiny", "lite_h_detr_tiny"])
@pytest.mark.parametrize(
    "options",
    [
        {"high_levels": 3, "high_updates": 2, "blocks": 3},
        {"high_levels": 2, "high_updates": 6, "blocks": 1, "key_aware": False},
        {"high_levels": 3, "low_updates": False},
    ],
    ids=str,
)
def test_trains(name: str, options: dict[str, Any]) -> None:
    check_trains(tiny(name, **options))


def test_batch_is_single() -> None:
    check_batch_is_single(tiny("lite_dino_tiny"))


def test_low_tokens_are_updated_at_the_end_of_each_block() -> None:
    detector = tiny("lite_dino_tiny", high_levels=2, high_updates=2, blocks=2).eval()
    with torch.no_grad():
        trace = detector(random_batch()[0], trace=True).trace
    everything = trace.padding.shape[1]
    high = sum(height * width for height, width in trace.spatial_shapes[2:])
    assert [len(layer[0]) for layer in trace.kept_tokens] == [high, everything, high, everything]


def test_without_low_updates_the_decoder_sees_the_high_levels_only() -> None:
    detector = tiny("lite_dino_tiny", high_levels=3, low_updates=False).eval()
    with torch.no_grad():
        out = detector(random_batch()[0], trace=True)
    assert out.encoded.memory.shape[1] == sum(height * width for height, width in out.trace.spatial_shapes)
    assert len(out.trace.spatial_shapes) == out.trace.attention_weights[0].shape[3] == 3


def test_high_levels_must_leave_low_ones() -> None:
    with pytest.raises(UsageError, match=r"'high_levels': expected 1 to 3, .*, got 4"):
        models.resolve("lite_dino_tiny", {"high_levels": 4})


def test_key_aware_attention_is_softmax_of_query_times_key() -> None:
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(1, 4, 2, 3, generator=generator, dtype=torch.float64)  # one 2x2 level, two heads
    query = torch.randn(1, 1, 2, 3, generator=generator, dtype=torch.float64)
    # The centres of the four cells, and a point far outside, whose key and value are zero.
    points = torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75], [5.0, 5.0]], dtype=torch.float64)
    locations = points.expand(1, 1, 2, 1, 5, 2)
    shapes, starts = torch.tensor([[2, 2]]), torch.tensor([0])
    output, weights = ops.key_aware_attention(value, shapes, starts, locations, query)
    keys = torch.cat([value[0], torch.zeros(1, 2, 3, dtype=torch.float64)])  # (5, M, D)
    expected = torch.einsum("md,pmd->mp", query[0, 0], keys).div(3**0.5).softmax(-1)
    assert torch.allclose(weights[0, 0, :, 0], expected)
    assert torch.allclose(output[0, 0], torch.einsum("mp,pmd->md", expected, keys).flatten())


def test_nothing_of_the_hybrid_branch_runs_at_inference() -> None:
    hybrid = tiny("lite_h_detr_tiny", one_to_many_queries=10).eval()
    plain = tiny("deformable_detr_pp_tiny", encoder="lite", key_aware=True).eval()
    state = hybrid.state_dict()
    assert len(state["queries.embedding"]) == 30
    plain.load_state_dict({**state, "queries.embedding": state["queries.embedding"][:20]})
    images, targets = random_batch()
    with torch.no_grad():
        assert hybrid(images, targets=targets).one_to_many[-1].boxes.shape == (2, 10, 4)
        found, expected = hybrid(images), plain(images)
    assert not found.one_to_many
    assert torch.equal(found.pred_boxes, expected.pred_boxes)
    assert torch.equal(found.pred_logits, expected.pred_logits)


def test_runs_on_the_meta_device() -> None:
    with torch.device("meta"):
        detector = tiny("lite_dino_tiny").eval()
        assert detector(torch.zeros(1, 3, 128, 160)).pred_boxes.shape == (1, 20, 4)
