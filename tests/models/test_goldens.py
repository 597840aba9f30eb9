"""Every official model that was recorded: its file loads, and what it computes is what ours computes, in float64.

Losses of the training step, denoising and label assignment are in the tests of the families.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from golden_files import CREATE, GOLDENS, batch_of, golden, official_detector, relative_gap, targets_of

from detrbench import models
from detrbench.models.dam import corr, decoder_attention_map, kept_mask
from detrbench.models.detector import Detector, DetectorOutput

# Parameters of the official code that nothing reads, or that move nothing, and that ours has not: the query projections
# of key-aware attention in all of Lite DETR's twelve layers, a bias before each softmax of Salience-DETR's fusion.
UNUSED = dict.fromkeys(("lite_dino_plain", "lite_dino_H3L1_2p1x3_nokda"), 12 * (256 * 256 + 256))
UNUSED["salience_detr_r50"] = 18
# Logged by the original code, not trained on.
LOGGED = ("class_error", "cardinality_error")


class Case(NamedTuple):
    """A golden's case, run."""

    detector: Detector
    out: DetectorOutput
    golden: dict[str, Any]
    case: dict[str, Any]


def test_every_file_has_a_detector() -> None:
    assert set(CREATE) == {path.stem for path in GOLDENS.glob("*.json")}


@pytest.mark.full  # the small references hold every family in every run
@pytest.mark.parametrize("name", sorted(CREATE))
def test_the_official_model(name: str, tmp_path: Path) -> None:
    recorded, detector = golden(name), official_detector(name, tmp_path)
    parameters = list(detector.parameters())
    unused = UNUSED.get(name, 0)
    total = (sum(p.numel() for p in parameters) + unused) / 1e6
    trainable = (sum(p.numel() for p in parameters if p.requires_grad) + unused) / 1e6
    assert total == pytest.approx(recorded["params_millions"], abs=1e-6)
    assert trainable == pytest.approx(recorded["params_millions_trainable"], abs=1e-6)
    for case in recorded["cases"].values():
        images, masks = batch_of(case)
        with torch.no_grad():
            out = detector(images, masks, outputs="all", trace=True)
            final = detector(images, masks)
            fast = models.for_inference(detector)(images, masks)
        check_predictions(final, case)
        check_predictions(fast, case)
        check_predictions(out, case)
        for key in case.keys() - READ_ELSEWHERE:
            CHECKS[key](Case(detector, out, recorded, case))


def check_predictions(out: DetectorOutput, case: dict[str, Any]) -> None:
    """The first eight queries, and the sum over all."""
    for key in ("pred_logits", "pred_boxes"):
        ours, recorded = getattr(out, key), case[key]
        assert list(ours.shape) == recorded["shape"]
        assert relative_gap(ours, recorded["first8"]) < 1e-8, key
        assert float(ours.sum()) == pytest.approx(recorded["sum"], rel=1e-8)


def check_layers(run: Case) -> None:
    """Sums of each decoder layer before the last."""
    for layer, recorded in zip(run.out.layers[:-1], run.case["aux"], strict=True):
        assert float(layer.logits.sum()) == pytest.approx(recorded["logits_sum"], rel=1e-8)
        assert float(layer.boxes.sum()) == pytest.approx(recorded["boxes_sum"], rel=1e-8)


def check_states(run: Case) -> None:
    """Sums of each decoder layer's state."""
    sums = [float(state.sum()) for state in run.out.decoded.states]
    assert sums == pytest.approx(run.case["decoder_per_layer_sum"], rel=1e-7)


def check_memory(run: Case) -> None:
    """What the encoder hands on."""
    memory, recorded = run.out.encoded.memory, run.case["encoder_output"]
    assert list(memory.shape) == recorded["shape"]
    assert float(memory.sum()) == pytest.approx(recorded["sum"], rel=1e-8)


def check_selection(run: Case) -> None:
    """The first queries start at the boxes of the recorded tokens."""
    assert run.detector.proposal_head is not None
    boxes = run.detector.proposal_head.predict(run.out.encoded.memory, run.out.tokens).boxes
    for image, indices in enumerate(run.case["topk_first8_token_index"]):
        assert torch.allclose(run.out.queries.reference_points[image, :8], boxes[image, indices], atol=1e-9)


def check_losses(run: Case) -> None:
    """Each term, its weight, and the weighted sum."""
    targets = targets_of(run.golden["targets_for_losses"], len(run.out.pred_boxes))
    criterion = run.detector.criterion
    losses = criterion(run.out, targets)
    expected = {name: value for name, value in run.case["losses"].items() if not name.startswith(LOGGED)}
    assert {name: float(value) for name, value in losses.items()} == pytest.approx(expected, rel=1e-8)
    assert {name: criterion.weight(name) for name in losses} == run.case["loss_weights"]
    assert float(criterion.total(losses)) == pytest.approx(run.case["total_weighted_loss"], rel=1e-8)


def kept_by_level(run: Case, layer: int) -> list[list[int]]:
    """How many tokens of each level an encoder layer keeps, by image."""
    trace = run.out.trace
    assert trace is not None
    mask = kept_mask(trace.kept_tokens[layer], trace.padding.shape[1])
    return torch.stack([level.flatten(1).sum(1) for level in trace.by_level(mask)], 1).tolist()


def check_sparse(run: Case) -> None:
    """Sparse DETR: which tokens are kept (of a batch, the official code lists the first of the larger image too)."""
    assert run.out.trace is not None
    recorded, kept = run.case["sparse"], run.out.trace.kept_tokens[0]
    assert [len(tokens) for tokens in kept] == recorded["sparse_token_nums"]
    for image, (tokens, indices) in enumerate(zip(kept, recorded["kept_token_indices_sorted"], strict=True)):
        if len(indices) == len(tokens):
            assert sorted(tokens.tolist()) == sorted(indices)
            assert kept_by_level(run, 0)[image] == recorded["kept_per_level"][image]


def check_dam(run: Case) -> None:
    """The decoder's attention map, and its share on kept tokens."""
    trace, recorded = run.out.trace, run.case["dam"]
    assert trace is not None
    attention = decoder_attention_map(trace.sampling_locations, trace.attention_weights, trace.spatial_shapes)
    assert attention.sum(1).tolist() == pytest.approx(recorded["sum_per_image"], rel=1e-8)
    assert attention.argmax(1).tolist() == recorded["argmax"]
    assert relative_gap(attention, recorded["first8_tokens"]) < 1e-8
    if "corr_all_per_image" in recorded and len(attention) == 1:
        # Of a batch the official figure counts surplus tokens of smaller images too; see tests/measure/test_dam.py.
        ours = corr(attention, kept_mask(trace.kept_tokens[0], attention.shape[1]))
        assert ours.tolist() == pytest.approx(recorded["corr_all_per_image"], rel=1e-8)


def check_focus(run: Case) -> None:
    """Focus-DETR: scores by level, and which tokens each layer keeps, best first."""
    trace, recorded = run.out.trace, run.case["focus"]
    assert trace is not None
    assert [list(shape) for shape in trace.spatial_shapes] == recorded["spatial_shapes"]
    assert [len(tokens) for tokens in trace.kept_tokens[0]] == recorded["focus_token_nums"]
    assert [max(map(len, layer)) for layer in trace.kept_tokens] == recorded["kept_per_layer"]
    for image, tokens in enumerate(trace.kept_tokens[0]):
        if len(tokens) == recorded["kept_per_layer"][0]:
            assert sorted(tokens.tolist()) == recorded["layer1_kept_sorted"][image]
            assert tokens[:50].tolist() == recorded["layer1_kept_rank_order_first50"][image]
            levels = [kept_by_level(run, layer)[image] for layer in range(len(trace.kept_tokens))]
            assert levels == [layer[image] for layer in recorded["kept_per_layer_per_level"]]
    assert trace.scores is not None
    for image, levels in enumerate(recorded["score_stats_per_level"]):
        for scores, stats in zip(trace.by_level(trace.scores), levels, strict=True):
            ours = {"mean": scores[image].mean(), "min": scores[image].min(), "max": scores[image].max()}
            expected = {name: stats[name] for name in ours}
            assert {name: float(value) for name, value in ours.items()} == pytest.approx(expected, rel=1e-8, abs=1e-9)


def check_salience(run: Case) -> None:
    """Salience-DETR: scores by level, which tokens each layer updates, best first, and which become queries."""
    trace, recorded, out = run.out.trace, run.case["salience"], run.out
    assert trace is not None
    assert out.encoded.foreground is not None
    assert [list(shape) for shape in trace.spatial_shapes] == recorded["spatial_shapes"]
    assert [len(tokens) for tokens in out.encoded.kept_tokens[0]] == recorded["token_nums"]
    assert [[len(tokens) for tokens in layer] for layer in trace.kept_tokens] == recorded["updated_off_padding"]
    assert [sorted(tokens.tolist()) for tokens in trace.kept_tokens[0]] == recorded["first_layer_sorted"]
    assert [tokens.tolist() for tokens in trace.kept_tokens[-1]] == recorded["last_layer_order"]
    sums = [level.flatten(1).sum(1).tolist() for level in trace.by_level(out.encoded.foreground)]
    for ours, theirs in zip(sums, recorded["score_sum_per_level"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-8)


CHECKS: dict[str, Callable[[Case], None]] = {
    "aux": check_layers,
    "decoder_per_layer_sum": check_states,
    "encoder_output": check_memory,
    "topk_first8_token_index": check_selection,
    "losses": check_losses,
    "sparse": check_sparse,
    "dam": check_dam,
    "focus": check_focus,
    "salience": check_salience,
}
# What the run is made of, is read together with another figure, belongs to a decoder that only training runs
# (tests/models/test_dac.py), or says how far the official ranking is from a tie.
READ_ELSEWHERE = {
    *("images", "padding", "pred_logits", "pred_boxes", "loss_weights", "total_weighted_loss"),
    *("pred_logits_cdecoder", "pred_boxes_cdecoder", "topk_gaps"),
}
