"""What a trace holds of every detector, and that it costs nothing where nobody asks for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from test_laws import NAMES, SMALL, padded_pair, small, with_slow
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from detrbench.models import ops
from detrbench.models.detector import Detector, DetectorOutput
from detrbench.models.trace import Trace


def forward(detector: Detector, **arguments: Any) -> DetectorOutput:
    images, masks, _ = padded_pair()
    with torch.no_grad():
        return detector(images, masks, **arguments)


def traced(detector: Detector, **arguments: Any) -> Trace:
    found = forward(detector, trace=True, **arguments).trace
    assert found is not None
    return found


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor that a result holds on to."""
    if isinstance(value, Tensor):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from tensors(getattr(value, field.name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)


def test_shapes(detector: Detector) -> None:
    trace = traced(detector)
    layers, heads = SMALL["num_decoder_layers"], SMALL["num_heads"]
    assert len(trace.reference_points) == len(trace.sampling_locations) == layers
    assert all(points.shape[:2] == (2, SMALL["num_queries"]) for points in trace.reference_points)
    samples = detector.spec.parts["encoder"] != "hybrid"  # which has dense attention and convolutions
    assert len(trace.kept_tokens) > 0
    assert len(trace.encoder_sampling) == (len(trace.kept_tokens) if samples else 0)
    for sampling, kept in zip(trace.encoder_sampling, trace.kept_tokens):
        batch, rows, *layout, _ = sampling.sampling_locations.shape
        assert (batch, layout[0]) == (2, heads)
        assert rows >= max(len(tokens) for tokens in kept)
        assert sampling.attention_weights.shape == (batch, rows, *layout)
        assert torch.allclose(sampling.attention_weights.sum((-2, -1)), torch.ones(batch, rows, heads).double())
        assert sampling.reference_points.shape == (batch, rows, layout[1], 2)
    num_tokens = trace.padding.shape[1]
    maps = trace.by_level(torch.arange(2 * num_tokens).view(2, num_tokens))
    assert [tuple(level.shape[1:]) for level in maps] == trace.spatial_shapes
    assert maps[-1][1, -1, -1] == 2 * num_tokens - 1


@pytest.mark.parametrize("name", with_slow(NAMES))
def test_off_it_leaves_nothing_behind(name: str) -> None:
    detector = small(name).requires_grad_(False)  # the counter trips over parameters that want gradients
    with FlopCounterMode(display=False) as before:
        off = forward(detector)
    with FlopCounterMode(display=False) as during:
        on = forward(detector, trace=True)
    assert torch.equal(off.pred_boxes, on.pred_boxes)
    assert torch.equal(off.pred_logits, on.pred_logits)
    assert before.get_total_flops() == during.get_total_flops() > 0
    assert off.trace is None
    assert on.trace is not None
    thrown_away = {tensor.data_ptr() for tensor in tensors(on.trace.encoder_sampling)}
    kept = {tensor.data_ptr() for tensor in tensors(on)}
    assert thrown_away <= kept
    shapes = {tuple(tensor.shape) for tensor in tensors(on.trace.encoder_sampling)}
    assert not shapes & {tuple(tensor.shape) for tensor in tensors(off)}
    assert not any(module._forward_hooks for module in detector.modules())


def test_locations_and_weights_are_made_only_for_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Tensor) -> Tensor:
        raise AssertionError("somebody asked")

    monkeypatch.setattr(ops, "sampling_locations", refuse)
    monkeypatch.setattr(ops, "sampling_weights", refuse)
    detector = small("sparse_detr_tiny")
    forward(detector)
    with pytest.raises(AssertionError, match="somebody asked"):
        forward(detector, trace=True)


def test_rows_of_the_encoder_are_its_kept_tokens() -> None:
    for name in ("sparse_detr_tiny", "focus_detr_tiny", "lite_dino_tiny"):
        detector = small(name)
        images, _, _ = padded_pair()
        with torch.no_grad():
            out = detector(images, trace=True)
        places = out.tokens.cell_centres()
        for sampling, kept in zip(out.trace.encoder_sampling, out.trace.kept_tokens):
            own = places[0, kept[0]]
            assert torch.allclose(sampling.reference_points[0, : len(own), 0], own)


def test_object_tokens_are_among_the_kept_ones() -> None:
    detector = small("focus_detr_tiny", fine_tokens=7)
    trace = traced(detector)
    assert [[len(chosen) for chosen in layer] for layer in trace.object_tokens] == [[7, 7], [7, 7]]
    for chosen, kept in zip(trace.object_tokens, trace.kept_tokens):
        for image in range(2):
            assert set(chosen[image].tolist()) <= set(kept[image].tolist())
    assert traced(small("sparse_detr_tiny")).object_tokens == []


def test_references_of_inference_are_those_of_training(detector: Detector) -> None:
    final, every = traced(detector), traced(detector, outputs="all")
    for one, other in zip(final.reference_points, every.reference_points):
        assert torch.allclose(one, other, atol=1e-12)
