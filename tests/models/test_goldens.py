"""Deformable, Efficient and Sparse DETR against the outputs of their official code, in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from golden_files import batch_of, golden, needs_goldens, official_detector, relative_gap, targets_of

from detrbench.models.dam import corr, decoder_attention_map, kept_mask

CASES: dict[str, dict[str, Any]] = {
    "def_r50_plain": {"name": "deformable_detr_r50"},
    "def_r50_bbr": {"name": "deformable_detr_refine_r50"},
    "def_r50_two_stage": {"name": "deformable_detr_two_stage_r50"},
    "sp_r50_deformable": {"name": "deformable_detr_r50", "source": "sparse_detr"},
    "sp_r50_efficient": {"name": "efficient_detr_r50"},
    "sp_r50_sparse_rho0.3": {"name": "sparse_detr_r50", "keep_ratio": 0.3},
}

pytestmark = needs_goldens


@pytest.fixture(scope="module", params=CASES)
def official(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    name = request.param
    detector = official_detector(name, tmp_path_factory.mktemp("weights"), **CASES[name])
    outputs = {}
    for case_name, case in golden(name)["cases"].items():
        images, masks = batch_of(case)
        with torch.no_grad():
            outputs[case_name] = (
                detector(images, masks),
                detector(images, masks, outputs="all", trace=True),
            )
    return name, detector, outputs


def test_predictions(official: Any) -> None:
    name, _, outputs = official
    for case_name, case in golden(name)["cases"].items():
        for out in outputs[case_name]:
            for key in ("pred_logits", "pred_boxes"):
                ours, recorded = getattr(out, key), case[key]
                assert list(ours.shape) == recorded["shape"]
                assert relative_gap(ours, recorded["first8"]) < 1e-8, (case_name, key)
                assert float(ours.sum()) == pytest.approx(recorded["sum"], rel=1e-8)


def test_losses(official: Any) -> None:
    name, detector, outputs = official
    recorded = golden(name)
    for case_name, case in recorded["cases"].items():
        if "losses" not in case:
            continue
        out = outputs[case_name][1]
        losses = detector.criterion(out, targets_of(recorded["targets_for_losses"], len(out.pred_boxes)))
        assert {key: float(value) for key, value in losses.items()} == pytest.approx(case["losses"], rel=1e-8)
        assert {key: detector.criterion.weight(key) for key in losses} == case["loss_weights"]
        assert float(detector.criterion.total(losses)) == pytest.approx(case["total_weighted_loss"], rel=1e-8)


def test_parameters(official: Any) -> None:
    name, detector, _ = official
    parameters = list(detector.parameters())
    total = sum(p.numel() for p in parameters) / 1e6
    trainable = sum(p.numel() for p in parameters if p.requires_grad) / 1e6
    assert total == pytest.approx(golden(name)["params_millions"], abs=1e-6)
    assert trainable == pytest.approx(golden(name)["params_millions_trainable"], abs=1e-6)


def test_sparse_tokens_dam_and_corr(tmp_path: Path) -> None:
    name = "sp_r50_sparse_rho0.3"
    detector = official_detector(name, tmp_path, **CASES[name])
    for case in golden(name)["cases"].values():
        images, masks = batch_of(case)
        with torch.no_grad():
            out = detector(images, masks, trace=True)
        trace = out.trace
        sparse, dam = case["sparse"], case["dam"]
        for image, recorded in enumerate(sparse["kept_token_indices_sorted"]):
            kept = sorted(trace.kept_tokens[0][image].tolist())
            assert len(kept) == sparse["sparse_token_nums"][image]
            if len(recorded) == len(kept):
                assert kept == sorted(recorded)
        attention = decoder_attention_map(trace.sampling_locations, trace.attention_weights, trace.spatial_shapes)
        assert attention.sum(1).tolist() == pytest.approx(dam["sum_per_image"], rel=1e-8)
        assert attention.argmax(1).tolist() == dam["argmax"]
        assert relative_gap(attention, dam["first8_tokens"]) < 1e-8
        if len(images) == 1:  # in a batch the official figure counts surplus tokens of smaller images too
            ours = corr(attention, kept_mask(trace.kept_tokens[0], attention.shape[1]))
            assert ours.tolist() == pytest.approx(dam["corr_all_per_image"], rel=1e-8)
