"""Deformable DETR of Hugging Face transformers: its names, its tied heads, its outputs."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_files import CREATE, golden
from reference.seeded import seeded_tensor
from safetensors.torch import save_file
from torch import Tensor, nn

from detrbench import models
from detrbench.errors import CheckpointError
from detrbench.models.checkpoints import transformers
from detrbench.models.checkpoints.fitting import check_fit
from detrbench.models.detector import Detector

VARIANTS: dict[str, dict[str, Any]] = {
    "deformable_detr": {},
    "deformable_detr_refine": {"with_box_refine": True},
    "deformable_detr_two_stage": {"with_box_refine": True, "two_stage": True},
}
GOLDENS = [name for name in CREATE if name.startswith("hf_")]
SMALL = {"num_queries": 20, "num_classes": 7, "num_encoder_layers": 2, "num_decoder_layers": 2, "ffn_dim": 64}


@functools.cache
def published(name: str) -> dict[str, Tensor]:
    """Names and shapes as published; each tensor is one number everywhere, which takes neither time nor memory."""
    shapes, aliases = golden(name)["shapes"], golden(name)["aliases"]
    return {key: seeded_tensor(aliases.get(key, key), ()).expand(shape) for key, shape in shapes.items()}


@functools.cache
def detector_of(name: str) -> Detector:
    """Without values."""
    with torch.device("meta"):
        return models.create(**CREATE[name]).eval()


def translated(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names, checked as `load_checkpoint` checks them."""
    detector = detector_of(name)
    tensors, ignored = transformers.ADAPTER.translate(state, detector)
    assert transformers.ADAPTER.recognises(state)
    assert not ignored
    check_fit(tensors, detector.state_dict(), Path(name), name, "")
    return tensors


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.full
@pytest.mark.parametrize("name", GOLDENS)
def test_published_and_in_memory_names_and_either_alias(name: str) -> None:
    state, in_memory = published(name), golden(name)["in_memory_names"]
    expected = translated(name, state)
    assert same(expected, translated(name, {in_memory.get(key, key): tensor for key, tensor in state.items()}))
    for dropped in ("model.decoder.bbox_embed.", "bbox_embed.", "class_embed."):
        rest = {key: tensor for key, tensor in state.items() if not key.startswith(dropped)}
        if dropped.startswith("model.") or any(key.startswith(f"model.decoder.{dropped}") for key in state):
            assert same(expected, translated(name, rest))
    keys = state["model.decoder.layers.1.self_attn.k_proj.weight"]
    assert torch.equal(expected["decoder.layers.1.self_attention.in_proj_weight"][256:512], keys)


def test_tied_heads_may_be_named_once() -> None:
    name = "hf_deformable_detr_r50_plain"
    state = published(name)
    first = {key: tensor for key, tensor in state.items() if "_embed." not in key or "_embed.0" in key}
    assert same(translated(name, state), translated(name, first))

    name = "hf_deformable_detr_r50_bbr"
    state = published(name)
    first = {key: tensor for key, tensor in state.items() if "class_embed." not in key or "class_embed.0" in key}
    assert torch.equal(translated(name, first)["heads.class_embed.5.weight"], state["class_embed.0.weight"])


@pytest.mark.parametrize(
    "lost",
    [
        "class_embed.3.bias",
        "model.decoder.layers.2.self_attn.v_proj.weight",
        "model.decoder.layers.0.self_attn.q_proj.bias",
        "model.backbone.conv_encoder.model.bn1.running_var",
    ],
)
def test_a_name_that_is_lost_is_an_error(lost: str) -> None:
    name = "hf_deformable_detr_r50_bbr"
    with pytest.raises(CheckpointError, match="does not fit"):
        translated(name, {key: tensor for key, tensor in published(name).items() if key != lost})


def test_a_published_file_is_recognised(tmp_path: Path) -> None:
    name = "hf_deformable_detr_r50_plain"
    whole = {key: tensor.float().contiguous() for key, tensor in published(name).items()}
    save_file(whole, tmp_path / "model.safetensors")
    report = models.load_checkpoint(models.create(**CREATE[name]), tmp_path / "model.safetensors")
    assert report.adapter == "transformers"


@pytest.mark.full
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_transformers_itself(variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = their_detector(VARIANTS[variant])
    torch.save(theirs.state_dict(), tmp_path / "m.pth")
    ours = models.create(f"{variant}_r50", source="transformers", **SMALL).double().eval()
    models.load_checkpoint(ours, tmp_path / "m.pth")
    images, masks = torch.randn(2, 3, 96, 128).double(), torch.zeros(2, 96, 128, dtype=torch.bool)
    masks[0, :, 96:] = masks[1, 64:] = True
    images = images.masked_fill(masks[:, None], 0.0)
    with torch.no_grad():
        out = ours(images, masks)
        # It embeds the proposals of a two-stage model in float32, whatever the model's type.
        monkeypatch.setattr(torch, "float32", torch.float64)
        expected = theirs(images, (~masks).long())
    assert torch.allclose(out.pred_logits, expected.logits, atol=1e-9)
    assert torch.allclose(out.pred_boxes, expected.pred_boxes, atol=1e-9)


def their_detector(options: dict[str, bool]) -> nn.Module:
    """A small one with random weights; every parameter is moved, since many begin at zero."""
    library = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("timm", reason="timm, which transformers' ResNet needs, is not installed")
    config = library.DeformableDetrConfig(
        num_labels=SMALL["num_classes"],
        num_queries=SMALL["num_queries"],
        two_stage_num_proposals=SMALL["num_queries"],
        encoder_layers=SMALL["num_encoder_layers"],
        decoder_layers=SMALL["num_decoder_layers"],
        encoder_ffn_dim=SMALL["ffn_dim"],
        decoder_ffn_dim=SMALL["ffn_dim"],
        disable_custom_kernels=True,
        **options,
    )
    torch.manual_seed(0)
    detector = library.DeformableDetrForObjectDetection(config).double().eval()
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return detector
