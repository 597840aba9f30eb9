"""Weights in and out: strict, safe, and with their origin."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from detrbench import files, models
from detrbench.errors import CheckpointError
from detrbench.models import checkpoints
from detrbench.models.checkpoints import detrex, original, transformers
from detrbench.models.checkpoints.adapter import join_pieces
from detrbench.models.detector import Detector

SMALL = {"hidden_dim": 32, "width": 8, "ffn_dim": 48, "num_queries": 5, "num_classes": 4}
LAYERS = {"num_encoder_layers": 2, "num_decoder_layers": 2}


def small(name: str = "sparse_detr_tiny", **overrides: Any) -> Detector:
    shares = {"focus": {"keep_ratios": [0.5, 0.3]}, "salience": {"layer_ratios": [1.0, 0.5]}}
    ratios = shares.get(name.partition("_")[0], {})
    return models.create(name, **{**SMALL, **LAYERS, **ratios, **overrides})


def test_ours_come_back_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    saved, loaded = small(), small()
    models.save_checkpoint(saved, path, {"source": "a test"})
    report = models.load_checkpoint(loaded, path)
    assert report.adapter == "detrbench"
    assert report.provenance["source"] == "a test"
    assert report.provenance["variant"] == "sparse_detr_tiny"
    assert report.sha256 == files.sha256(path)
    assert all(torch.equal(a, b) for a, b in zip(saved.state_dict().values(), loaded.state_dict().values()))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors"]


def test_equal_weights_are_equal_files(tmp_path: Path) -> None:
    origin = {"source": "a test", "adapter": "x", "converted": "today", "zeta": "é"}
    digests, detector = set(), small()
    for turn in range(4):
        provenance = dict(sorted(origin.items(), reverse=bool(turn % 2)))
        models.save_checkpoint(detector, tmp_path / f"{turn}.safetensors", provenance)
        digests.add(files.sha256(tmp_path / f"{turn}.safetensors"))
        assert models.load_checkpoint(small(), tmp_path / f"{turn}.safetensors").provenance["zeta"] == "é"
    assert len(digests) == 1
    content = (tmp_path / "0.safetensors").read_bytes()
    names = list(json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]))
    assert names == sorted(names)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    detector = small()
    with torch.no_grad():
        detector.get_submodule("neck").level_embed[0, 0] = value
    torch.save(detector.state_dict(), tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=r"not finite: neck\.level_embed"):
        models.load_checkpoint(small(), tmp_path / "m.pth")


def test_loading_keeps_the_type(tmp_path: Path) -> None:
    models.save_checkpoint(small(), tmp_path / "m.safetensors")
    detector = small().double()
    models.load_checkpoint(detector, tmp_path / "m.safetensors")
    assert {p.dtype for p in detector.parameters()} == {torch.float64}


def test_whatever_does_not_fit_is_listed(tmp_path: Path) -> None:
    state = small().state_dict()
    state["neck.surprise"] = state.pop("neck.level_embed")
    state["proposal_head.norm.bias"] = torch.zeros(7)
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(CheckpointError) as caught:
        models.load_checkpoint(small(), tmp_path / "m.pth")
    for part in ("1 missing: neck.level_embed", "1 unexpected: neck.surprise", "1 mis-shaped: proposal_head.norm.bias"):
        assert part in caught.value.message


def test_another_variants_file_is_refused(tmp_path: Path) -> None:
    models.save_checkpoint(small("deformable_detr_tiny"), tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match="does not fit sparse_detr_tiny"):
        models.load_checkpoint(small(), tmp_path / "m.safetensors")


def test_weights_with_a_modulation_run_without_it_and_not_the_other_way_round(tmp_path: Path) -> None:
    """What the modulation reads is the one thing left out, and the report says so."""
    modulated, plain = (small("focus_detr_tiny", modulation=kind) for kind in ("top_down", "none"))
    models.save_checkpoint(modulated, tmp_path / "m.safetensors")
    report = models.load_checkpoint(plain, tmp_path / "m.safetensors")
    assert report.ignored == ("encoder.selector.alpha",)
    assert all(torch.equal(tensor, modulated.state_dict()[name]) for name, tensor in plain.state_dict().items())
    assert detrex.ADAPTER.translate({"transformer.alpha": torch.ones(3)}, plain) == ({}, ["transformer.alpha"])
    models.save_checkpoint(plain, tmp_path / "n.safetensors")
    with pytest.raises(CheckpointError, match=r"1 missing: encoder\.selector\.alpha"):
        models.load_checkpoint(modulated, tmp_path / "n.safetensors")
    torch.save({**small().state_dict(), "encoder.selector.alpha": torch.ones(3)}, tmp_path / "s.pth")
    with pytest.raises(CheckpointError, match=r"1 unexpected: encoder\.selector\.alpha"):
        models.load_checkpoint(small(), tmp_path / "s.pth")


@pytest.mark.parametrize(
    ("adapter", "official", "ours"),
    [
        (original, "transformer.decoder.layers.1.norm1.bias", "decoder.layers.1.cross_attention_norm.bias"),
        (original, "transformer.decoder.layers.1.norm2.bias", "decoder.layers.1.self_attention_norm.bias"),
        (original, "transformer.decoder.layers.1.norm3.bias", "decoder.layers.1.feed_forward.norm.bias"),
        # Two decoder layers, the proposal head, then the encoder's heads: all in one list.
        (original, "transformer.decoder.bbox_embed.1.layers.2.bias", "heads.box_embed.1.layers.2.bias"),
        (original, "transformer.decoder.class_embed.2.bias", "proposal_head.class_embed.bias"),
        (original, "transformer.decoder.class_embed.3.bias", "encoder.auxiliary_heads.0.class_embed.bias"),
        (detrex, "transformer.decoder.layers.1.norms.0.bias", "decoder.layers.1.self_attention_norm.bias"),
        (detrex, "transformer.decoder.layers.1.norms.1.bias", "decoder.layers.1.cross_attention_norm.bias"),
        (detrex, "class_embed.2.bias", "proposal_head.class_embed.bias"),
        (detrex, "neck.convs.2.norm.bias", "neck.projections.2.1.bias"),
        (detrex, "neck.extra_convs.0.conv.bias", "neck.projections.3.0.bias"),  # behind three of the backbone
    ],
)
def test_names_of_other_code_bases(adapter: Any, official: str, ours: str) -> None:
    detector = small(shared_heads=False, num_decoder_layers=2)
    assert list(adapter.ADAPTER.translate({official: torch.zeros(1)}, detector)[0]) == [ours]


def test_pieces_are_joined_in_their_order() -> None:
    whole = join_pieces({"a": torch.tensor([7]), **{f"b[{index}]": torch.tensor([index]) for index in (2, 0, 1)}})
    assert {name: tensor.tolist() for name, tensor in whole.items()} == {"a": [7], "b": [0, 1, 2]}
    state = {
        f"model.decoder.layers.0.self_attn.{kind}_proj.bias": torch.tensor([index]) for index, kind in enumerate("qkv")
    }
    joined = transformers.ADAPTER.translate(state, small())[0]
    assert joined["decoder.layers.0.self_attention.in_proj_bias"].tolist() == [0, 1, 2]


def test_two_names_of_one_tensor_must_agree() -> None:
    detector = small("deformable_detr_tiny")
    state = {f"class_embed.{layer}.bias": torch.ones(4) for layer in range(2)}
    assert list(original.ADAPTER.translate(state, detector)[0]) == ["heads.class_embed.0.bias"]
    with pytest.raises(CheckpointError, match=r"class_embed\.1\.bias and class_embed\.0\.bias are one tensor"):
        original.ADAPTER.translate({**state, "class_embed.1.bias": torch.zeros(4)}, detector)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m.{suffix}"
    if suffix == "pth":
        torch.save(small().state_dict(), path)
    else:
        models.save_checkpoint(small(), path)
    for keep in (0, 1, 100, path.stat().st_size // 2, path.stat().st_size - 10):
        cut = tmp_path / f"cut.{suffix}"
        cut.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(CheckpointError, match="cut"):
            models.load_checkpoint(small(), cut)


class Hostile:
    """Would create a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_hostile_pickle_is_not_run(tmp_path: Path) -> None:
    torch.save({"model": {"neck.level_embed": torch.zeros(1)}, "args": Hostile(tmp_path / "owned")}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match="could run code"):
        models.load_checkpoint(small(), tmp_path / "m.pth")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no weights"),
        ([1, 2], "holds no weights"),
        ({"model": {"a": 1}}, "'a' is no tensor"),
        ({"model": {"conv.weight": torch.zeros(1)}}, "no supported code base"),
    ],
)
def test_files_without_a_detector(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=message):
        models.load_checkpoint(small(), tmp_path / "m.pth")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        models.load_checkpoint(small(), tmp_path / "nowhere.pth")


def test_one_tensor_with_two_values_is_refused(tmp_path: Path) -> None:
    plain = models.create("deformable_detr_r50")
    state = {"transformer.level_embed": plain.neck.level_embed.detach()}
    for layer in range(6):
        state[f"class_embed.{layer}.bias"] = torch.full((91,), float(layer))
    torch.save({"model": state}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match="are one tensor"):
        models.load_checkpoint(plain, tmp_path / "m.pth")


def test_convert_writes_the_origin(tmp_path: Path) -> None:
    models.save_checkpoint(small(), tmp_path / "a.safetensors")
    report = checkpoints.convert(small(), tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    again = models.load_checkpoint(small(), tmp_path / "b.safetensors")
    assert again.provenance["source"] == "a.safetensors"
    assert again.provenance["source_sha256"] == report.sha256


@pytest.mark.parametrize("name", ["deformable_detr_tiny", "sparse_detr_tiny", "dino_tiny", "dn_deformable_detr_tiny"])
def test_training_starts_from_weights_with_other_classes(tmp_path: Path, name: str) -> None:
    """All is taken over but what depends on the number of classes, which is named."""
    shallow = {"num_encoder_layers": 2, "num_decoder_layers": 2}
    before, ours = small(name, num_classes=7, **shallow), small(name, **shallow)
    models.save_checkpoint(before, tmp_path / "m.safetensors")
    fresh = {key: tensor.clone() for key, tensor in ours.state_dict().items()}
    report = models.start_from(ours, tmp_path / "m.safetensors")
    theirs = before.state_dict()
    assert set(report.replaced) == {key for key, tensor in fresh.items() if tensor.shape != theirs[key].shape}
    assert {key.split(".")[0] for key in report.replaced} >= {"heads"}
    for key, tensor in ours.state_dict().items():
        assert torch.equal(tensor, fresh[key] if key in report.replaced else theirs[key]), key
    assert report.loaded == len(theirs) - len(report.replaced)


def test_training_starts_from_all_of_weights_with_as_many_classes(tmp_path: Path) -> None:
    before, ours = small(), small()
    models.save_checkpoint(before, tmp_path / "m.safetensors")
    assert models.start_from(ours, tmp_path / "m.safetensors").replaced == ()
    assert all(torch.equal(a, b) for a, b in zip(before.state_dict().values(), ours.state_dict().values()))


def test_nothing_but_the_number_of_classes_may_differ(tmp_path: Path) -> None:
    ours = small()
    models.save_checkpoint(small(num_classes=7, ffn_dim=50), tmp_path / "m.safetensors")
    fresh = {key: tensor.clone() for key, tensor in ours.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"does not fit sparse_detr_tiny: \d+ mis-shaped: decoder") as caught:
        models.start_from(ours, tmp_path / "m.safetensors")
    assert "feed_forward" in caught.value.message
    assert "class_embed" not in caught.value.message
    assert all(torch.equal(tensor, fresh[key]) for key, tensor in ours.state_dict().items())


def test_other_classes_are_one_line_with_both_counts(tmp_path: Path) -> None:
    models.save_checkpoint(small(num_classes=7), tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError) as caught:
        models.load_checkpoint(small(), tmp_path / "m.safetensors")
    assert caught.value.message.endswith("m.safetensors: has 7 class logits, this detector 4")
    assert caught.value.hint is not None
    assert "num_classes=7" in caught.value.hint


def test_class_names_travel_with_the_weights(tmp_path: Path) -> None:
    names = ["red cell", "white cell", "platelet", "été"]
    models.save_checkpoint(small(), tmp_path / "a.safetensors", {}, names)
    checkpoints.convert(small(), tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert checkpoints.class_names(tmp_path / "a.safetensors") == names
    assert checkpoints.class_names(tmp_path / "b.safetensors") == names
    models.save_checkpoint(small(), tmp_path / "c.safetensors")
    torch.save(small().state_dict(), tmp_path / "d.pth")
    assert checkpoints.class_names(tmp_path / "c.safetensors") is None
    assert checkpoints.class_names(tmp_path / "d.pth") is None


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(256, 256).to_sparse(),
        torch.quantize_per_tensor(torch.zeros(256), 0.1, 0, torch.qint8),
        torch.zeros(256, device="meta"),
        torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
        torch.zeros(256, dtype=torch.complex64),
    ],
    ids=["sparse", "quantised", "meta", "nested", "complex"],
)
def test_odd_tensors_are_refused(tmp_path: Path, value: torch.Tensor) -> None:
    torch.save({**small().state_dict(), "neck.level_embed": value}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError):
        models.load_checkpoint(small(), tmp_path / "m.pth")


def test_names_have_to_be_names(tmp_path: Path) -> None:
    torch.save({0: torch.zeros(2)}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match="expected names, got 0"):
        models.load_checkpoint(small(), tmp_path / "m.pth")


@pytest.mark.parametrize("name", ["m.pth", "m.safetensors", "m.pkl"])
@pytest.mark.parametrize("content", [b"", b"\x80", b"P", b"PK\x03\x04", b"{}"])
def test_files_of_a_few_bytes_are_no_checkpoints(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError):
        models.load_checkpoint(small(), tmp_path / name)
