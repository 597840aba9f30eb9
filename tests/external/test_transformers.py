"""transformers' detectors: types at their defaults, repositories whose files are here, weights under earlier names."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from detrbench import models, published
from detrbench.data.coco_names import CATEGORIES
from detrbench.errors import CheckpointError, UsageError
from detrbench.external import loading, sources
from detrbench.external.detector import Adapted
from detrbench.measure import complexity, counters, protocols
from detrbench.measure.rules import EVERY_OP
from detrbench.suite import loading as suites
from detrbench.weights import place

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "your-detector.md"
RT_DETR = sources.parse("hf:rt_detr")
SMALL: dict[str, Any] = {
    "num_labels": 5,
    "d_model": 32,
    "encoder_hidden_dim": 32,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "num_queries": 12,
    "decoder_layers": 2,
    "encoder_in_channels": [16, 16, 16],
    "decoder_in_channels": [32, 32, 32],
    "backbone_config": {
        "model_type": "rt_detr_resnet",
        "embedding_size": 16,
        "layer_type": "basic",
        "depths": [1, 1, 1, 1],
        "hidden_sizes": [16, 16, 16, 16],
        "out_features": ["stage2", "stage3", "stage4"],
    },
}


def small(seed: int = 0, weights: Path | None = None, **options: Any) -> Adapted:
    return loading.load(RT_DETR, {**SMALL, **options}, seed, weights)


def test_a_type_needs_no_network_and_options_change_its_configuration() -> None:
    made = small()
    assert (made.native_size, made.external.multiple) == ((640, 640), 32)
    assert set(made.parts) == {"backbone", "neck", "encoder", "queries", "decoder"}
    with torch.inference_mode():
        out = made(torch.rand(1, 3, 50, 64))
        (found,) = made.detections(out, torch.zeros(1, 3, 50, 64), torch.tensor([[100, 128]]), ["image 7"])
    assert out.logits.shape == (1, 12, 5)
    assert len(found.scores) == 12
    # It saw 64x64 pixels, of which 50x64 are the image that is stored as 100x128.
    middle, half = out.pred_boxes[0, :, :2], out.pred_boxes[0, :, 2:] / 2
    theirs = 2 * 64 * torch.cat([middle - half, middle + half], dim=1).double()
    assert torch.cdist(found.boxes, theirs).min(1).values.max() < 1e-3


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("hf:rt_detr", {"num_lables": 3}, "hf:rt_detr: its configuration has no num_lables"),
        ("hf:rt_dtr", {}, "has no model type 'rt_dtr'"),
        ("hf:bert", {}, "hf:bert: "),
    ],
)
def test_what_is_no_detector_is_refused(source: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        loading.load(sources.parse(source), options)


def test_weights_fill_it_or_are_refused(tmp_path: Path) -> None:
    source = small(1)
    source.module.save_pretrained(tmp_path)
    filled = small(2, tmp_path / "model.safetensors")
    state = source.module.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in filled.module.state_dict().items())
    with pytest.raises(CheckpointError, match=r"weights of another RTDetrForObjectDetection: .* mismatched"):
        small(2, tmp_path / "model.safetensors", num_labels=6)


def test_a_repository_is_read_from_the_folder_of_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sizes, its labels' names and its weights; nothing is asked of the network."""
    monkeypatch.setattr(place, "_chosen", tmp_path)
    folder = tmp_path / "hub" / "someone" / "theirs"
    made = small(1, num_labels=80)
    config = made.module.config
    config.id2label = dict(enumerate(CATEGORIES.values()))
    made.module.save_pretrained(folder)
    transformers.RTDetrImageProcessor(size={"height": 96, "width": 128}).save_pretrained(folder)
    found = loading.load(sources.parse("hf:someone/theirs"), {}, 2, folder / "model.safetensors")
    assert found.native_size == (96, 128)
    assert found.external.category_ids == dict(enumerate(CATEGORIES))
    assert torch.equal(found.module.model.enc_score_head.weight, made.module.model.enc_score_head.weight)


def units(detector: nn.Module) -> Counter[str]:
    """By kind, of one 800x1066 image with every auxiliary head."""
    found: Counter[str] = Counter()
    for (_, _, kind), number in counters.count(detector.to("meta").eval(), 800, 1066, "all").units.items():
        found[kind] += number
    return +found


def test_deformable_detr_needs_what_ours_does() -> None:
    """Every product, norm, softmax and sample; what else differs is said in the documentation, in these numbers."""
    with torch.device("meta"):
        ours = units(models.create("deformable_detr_r50", source="transformers"))
        theirs = units(loading.load(sources.parse("hf:deformable_detr"), {"num_labels": 91}))
    sampled = theirs.pop("grid_sample")
    assert sampled == ours.pop("deformable_attention")
    assert theirs.pop("reduction") - ours.pop("reduction") == sampled  # the weighting, which the op does by itself
    resized, elementwise = theirs.pop("nearest"), ours.pop("elementwise") - theirs.pop("elementwise")
    assert ours == theirs
    total = sum(EVERY_OP.costs[kind] * number for kind, number in ours.items())
    page = PAGE.read_text(encoding="utf-8")
    for number in (ours["convolution"], ours["matmul"], sampled, resized, elementwise):
        assert f"{number:,}" in page
    assert total > 1e11


def test_published_operations_of_d_fine_are_as_far_as_on_record() -> None:
    """Counted as its authors count, 2 a multiply-add of 640x640 pixels, but not in the form that they deploy."""
    (cell,) = (cell for cell in suites.load("peers").rows("paper") if cell.id == "d-fine-l")
    row = published.load("d_fine/readme_coco").select(cell.row or {})
    assert cell.external is not None
    create = functools.partial(loading.load, cell.external, cell.options)
    found = complexity.measure(create, protocols.get("complexity", "twice_640")).gflops
    percent = 100 * (found / row.values["gflops"] - 1)
    assert row.difference_percent["gflops"] == pytest.approx(percent, abs=0.01)
