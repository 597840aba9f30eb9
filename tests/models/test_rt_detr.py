"""RT-DETR: official training in float64, transformers itself, names of files, and what its parts promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from golden_files import golden
from reference.seeded import seeded_checkpoint
from torch import Tensor, nn
from training_goldens import (
    Training,
    check_batch_is_single,
    check_gradients,
    check_losses,
    check_matching,
    check_noised,
    check_trains,
    fixed_random,
    random_batch,
    tiny,
)

from detrbench import models
from detrbench.errors import CheckpointError
from detrbench.models.attention import AttentionByLevel, DeformableAttention
from detrbench.models.dimensions import Dimensions
from detrbench.models.pixels import MEAN, STD, unit_range


@pytest.mark.full
def test_training_is_the_official_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training("rtdetr_r18vd", tmp_path)
    before = {name: tensor.clone() for name, tensor in training.detector.state_dict().items()}
    out, losses = training.run(denoising=False)
    check_losses(training, losses, training.golden["losses"], denoising=False)
    check_matching(out, training.targets, training.golden["matching"])
    check_gradients(training, losses, vanishing=1e-12)  # a batch norm's bias in front of another batch norm
    for kind, section in training.golden["denoising"].items():
        training.detector.load_state_dict(before)
        training.detector.denoising.label_noise = 0.5 if kind == "const" else 0.0  # see `patches` there
        with fixed_random(kind, monkeypatch), torch.no_grad():
            out, losses = training.run(denoising=True)
        check_noised(training, out.queries, section)
        check_losses(training, losses, section["losses_with_denoising_on"], denoising=True)


@pytest.mark.parametrize("name", ["rt_detr_tiny", "rt_detr_v2_tiny"])
def test_trains(name: str) -> None:
    check_trains(tiny(name))


@pytest.mark.parametrize("options", [{}, {"level_points": [1, 2, 3]}, {"sampling": "nearest"}], ids=str)
def test_batch_is_single(options: dict[str, Any]) -> None:
    check_batch_is_single(tiny("rt_detr_v2_tiny", **options))


# Depth, version, options of theirs, ours.
THEIRS: list[Any] = [
    pytest.param("r18vd", 1, {}, {}, id="r18vd"),
    pytest.param("r50vd", 1, {}, {}, id="r50vd", marks=pytest.mark.full),
    pytest.param("r101vd", 1, {}, {}, id="r101vd", marks=pytest.mark.full),
    pytest.param("r18vd", 2, {"decoder_n_points": 3}, {"level_points": [3, 3, 3]}, id="v2", marks=pytest.mark.full),
    pytest.param(
        "r18vd", 2, {"decoder_method": "discrete"}, {"sampling": "nearest"}, id="v2-discrete", marks=pytest.mark.full
    ),
]
STAGES = {"r18vd": [2, 2, 2, 2], "r50vd": [3, 4, 6, 3], "r101vd": [3, 4, 23, 3]}


@pytest.mark.parametrize(("backbone", "version", "theirs", "ours"), THEIRS)
def test_equals_transformers_itself(
    backbone: str, version: int, theirs: dict[str, Any], ours: dict[str, Any], tmp_path: Path
) -> None:
    expected_from = their_detector(backbone, version, theirs)
    torch.save(expected_from.state_dict(), tmp_path / "m.pth")
    detector = models.create(f"rt_detr_{'v2_' if version == 2 else ''}{backbone}", **ours).double().eval()
    assert models.load_checkpoint(detector, tmp_path / "m.pth").adapter == "transformers, RT-DETR"
    pixels = torch.rand(2, 3, 128, 192).double()  # of 504 tokens
    mean, std = (torch.tensor(values).double().view(3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        out, expected = detector((pixels - mean) / std), expected_from(pixels)
    assert torch.allclose(out.pred_logits, expected.logits, atol=1e-9)
    assert torch.allclose(out.pred_boxes, expected.pred_boxes, atol=1e-9)


def their_detector(backbone: str, version: int, options: dict[str, Any]) -> nn.Module:
    """As published, but for random weights; everything is moved, since much begins at zero or one."""
    library = pytest.importorskip("transformers", reason="transformers is not installed")
    small = backbone == "r18vd"
    widths = [64, 128, 256, 512] if small else [256, 512, 1024, 2048]
    encoder = {"encoder_hidden_dim": 384, "encoder_ffn_dim": 2048} if backbone == "r101vd" else {}
    config = getattr(library, "RTDetrConfig" if version == 1 else "RTDetrV2Config")(
        backbone_config=library.RTDetrResNetConfig(
            embedding_size=64,
            out_features=["stage2", "stage3", "stage4"],
            layer_type="basic" if small else "bottleneck",
            depths=STAGES[backbone],
            hidden_sizes=widths,
        ),
        encoder_in_channels=widths[1:],
        decoder_in_channels=[encoder.get("encoder_hidden_dim", 256)] * 3,
        hidden_expansion=0.5 if small else 1.0,
        decoder_layers=3 if small else 6,
        num_labels=80,
        **encoder,
        **options,
    )
    name = "RTDetrForObjectDetection" if version == 1 else "RTDetrV2ForObjectDetection"
    torch.manual_seed(0)
    detector = getattr(library, name)(config).double().eval()
    with torch.no_grad():
        for name, value in [*detector.named_parameters(), *detector.named_buffers()]:
            if name.endswith("n_points_scale"):
                value.copy_(1 / (1 / value).round())  # a third, which they round to float32
            elif value.is_floating_point():
                value.add_(0.02 * torch.rand_like(value))
    return detector


def test_what_transformers_saves_is_read(tmp_path: Path) -> None:
    """Published files have names of earlier versions, which transformers writes still."""
    theirs = their_detector("r18vd", 2, {})
    theirs.save_pretrained(tmp_path)
    detector = models.create("rt_detr_v2_r18vd").double()
    models.load_checkpoint(detector, tmp_path / "model.safetensors")
    in_memory = models.create("rt_detr_v2_r18vd").double()
    torch.save(theirs.state_dict(), tmp_path / "m.pth")
    models.load_checkpoint(in_memory, tmp_path / "m.pth")
    ours, expected = detector.state_dict(), in_memory.state_dict()
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


def official(name: str = "rtdetr_r18vd") -> dict[str, Tensor]:
    return {key: tensor.float() for key, tensor in seeded_checkpoint(golden(name)).items()}


def test_the_moving_average_is_what_is_read(tmp_path: Path) -> None:
    state = official()
    other = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    torch.save({"model": other, "ema": {"module": state, "updates": 7}, "last_epoch": 71}, tmp_path / "m.pth")
    detector = models.create("rt_detr_r18vd")
    assert models.load_checkpoint(detector, tmp_path / "m.pth").adapter == "RT-DETR"
    stem = detector.state_dict()["backbone.body.conv1.6.weight"]
    assert torch.equal(stem, state["backbone.conv1.conv1_3.conv.weight"])


@pytest.mark.parametrize(
    "lost",
    [
        "backbone.res_layers.0.blocks.0.short.conv.weight",
        "backbone.res_layers.3.blocks.0.short.conv.norm.running_var",
        "encoder.pan_blocks.1.bottlenecks.2.conv2.norm.bias",
        "decoder.query_pos_head.layers.1.bias",
    ],
)
def test_a_name_that_is_lost_is_an_error(lost: str, tmp_path: Path) -> None:
    torch.save({name: tensor for name, tensor in official().items() if name != lost}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match="does not fit rt_detr_r18vd: 1 missing"):
        models.load_checkpoint(models.create("rt_detr_r18vd"), tmp_path / "m.pth")


@pytest.mark.parametrize("model", ["rt_detr_r34vd", "rt_detr_r50vd"])
def test_another_size_is_refused(model: str, tmp_path: Path) -> None:
    torch.save(official(), tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match="does not fit"):
        models.load_checkpoint(models.create(model), tmp_path / "m.pth")


def test_the_backbone_alone_is_read_from_its_own_file(tmp_path: Path) -> None:
    state = {name.removeprefix("backbone."): t for name, t in official().items() if name.startswith("backbone.")}
    torch.save(state, tmp_path / "ResNet18_vd.pth")
    detector = models.create("rt_detr_r18vd")
    models.load_backbone(detector, tmp_path / "ResNet18_vd.pth")
    found = detector.state_dict()
    assert torch.equal(
        found["backbone.body.layer2.0.downsample.1.weight"], state["res_layers.1.blocks.0.short.conv.conv.weight"]
    )
    with pytest.raises(CheckpointError, match="backbone resnet34_vd"):
        models.load_backbone(models.create("rt_detr_r34vd"), tmp_path / "ResNet18_vd.pth")


def test_backbones_read_images_in_the_range_they_are_asked_for() -> None:
    torch.manual_seed(0)
    pixels = torch.rand(1, 3, 64, 64).double()
    images = (pixels - torch.tensor(MEAN).double().view(3, 1, 1)) / torch.tensor(STD).double().view(3, 1, 1)
    assert torch.allclose(unit_range(images), pixels, atol=1e-7)
    unit = models.create("rt_detr_r18vd").double().eval().backbone
    plain = models.create("rt_detr_r18vd", pixels="imagenet").double().eval().backbone
    plain.load_state_dict(unit.state_dict())
    with torch.no_grad():
        assert torch.allclose(unit(images)[0], plain(unit_range(images))[0], atol=1e-12)
        assert not torch.allclose(unit(images)[0], plain(images)[0], atol=1e-2)


@pytest.mark.parametrize(("name", "trained"), [("rt_detr_r18vd", True), ("rt_detr_r50vd", False)])
def test_stem_and_norms_are_frozen_as_in_the_official_configurations(name: str, trained: bool) -> None:
    with torch.device("meta"):
        backbone = models.create(name).backbone
    stem = [*backbone.body.conv1.parameters(), *backbone.body.bn1.parameters()]
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {parameter.requires_grad for parameter in stem} == {trained}
    assert bool(norms) == trained
    assert all(parameter.requires_grad for parameter in backbone.body.layer1.parameters())


def test_a_stem_with_trained_norms_is_frozen_whole() -> None:
    with torch.device("meta"):
        backbone = models.create("rt_detr_r18vd", frozen_stages=1).backbone
    stem = [*backbone.body.conv1.parameters(), *backbone.body.bn1.parameters()]
    assert not any(parameter.requires_grad for parameter in stem)


def dimensions(levels: int) -> Dimensions:
    return Dimensions(16, 2, levels, 3, 8, 0.0, 1, 1, 5, 3, 1e-5, False, 0)


def test_as_many_points_on_each_level_is_the_one_operation() -> None:
    torch.manual_seed(0)
    fused, apart = DeformableAttention(dimensions(2)).double(), AttentionByLevel(dimensions(2), [3, 3], False).double()
    assert torch.equal(fused.sampling_offsets.bias, apart.sampling_offsets.bias)
    with torch.no_grad():
        fused.attention_weights.weight.normal_()
        fused.sampling_offsets.weight.normal_()
    apart.load_state_dict(fused.state_dict())
    detector = tiny("rt_detr_tiny", num_levels=3).double().eval()
    with torch.no_grad():
        tokens = detector.neck(detector.backbone(torch.randn(2, 3, 64, 96).double()), None, (64, 96)).without_finest(1)
        query, memory = torch.randn(2, 5, 16).double(), torch.randn(2, tokens.features.shape[1], 16).double()
        for reference in (torch.rand(2, 5, 2, 2).double(), torch.rand(2, 5, 2, 4).double()):
            one, other = (attention(query, reference, memory, tokens) for attention in (fused, apart))
            assert torch.allclose(one.output, other.output, atol=1e-12)
            assert torch.allclose(one.points.locations, other.points.locations, atol=1e-12)
            assert torch.allclose(one.points.weights, other.points.weights, atol=1e-12)


def test_levels_with_other_numbers_of_points_keep_their_weights() -> None:
    out = tiny("rt_detr_v2_tiny", level_points=[1, 3, 2]).eval()(random_batch()[0], trace=True)
    locations, weights = out.trace.sampling_locations[0], out.trace.attention_weights[0]
    assert locations.shape == (2, 20, 4, 3, 3, 2)
    assert torch.allclose(weights.sum((3, 4)), torch.ones(2, 20, 4))
    assert [int((weights[0, 0, 0, level] > 0).sum()) for level in range(3)] == [1, 3, 2]


def test_the_nearest_cell_is_sampled_and_its_offsets_are_not_trained() -> None:
    detector = tiny("rt_detr_v2_tiny", sampling="nearest")
    check_trains(detector)
    offsets = [p for name, p in detector.named_parameters() if "sampling_offsets" in name]
    assert offsets
    assert not any(parameter.requires_grad for parameter in offsets)


def test_batch_norms_in_front_of_tokens_get_their_gradient() -> None:
    """Of a single image, which PyTorch 2.14 gets wrong on the CPU; see `with_whole_gradient`."""
    detector = tiny("rt_detr_tiny", dropout=0.0).double().train()
    tokens = detector.neck(detector.backbone(torch.randn(1, 3, 96, 64).double()), None, (96, 64))
    memory = detector.encoder(tokens, None, "all").memory
    counts = [height * width for height, width in tokens.sizes]
    for made, norms in ((tokens.features, detector.neck.projections), (memory, detector.encoder.output)):
        weight = torch.randn_like(made)
        found = torch.autograd.grad((made * weight).sum(), [norm[1].bias for norm in norms], retain_graph=True)
        for bias, level in zip(found, weight.split(counts, 1)):
            assert torch.allclose(bias, level.sum((0, 1)), atol=1e-10)


def test_contents_hand_no_gradient_to_the_encoder() -> None:
    detector = tiny("rt_detr_tiny").train()
    out = detector(random_batch()[0])
    assert not out.queries.content.requires_grad
    assert out.encoded.memory.requires_grad


def test_padding_changes_nothing_but_through_convolutions() -> None:
    """The coarsest level attends to what is no padding."""
    detector = tiny("rt_detr_tiny").double().eval()
    layer = detector.encoder.attention[0]
    tokens, position = torch.randn(1, 6, 32).double(), torch.randn(1, 6, 32).double()
    blocked = torch.tensor([False] * 4 + [True] * 2)[None, None, None]
    with torch.no_grad():
        alone, masked = layer(tokens[:, :4], position[:, :4], None), layer(tokens, position, blocked)
    assert torch.allclose(alone, masked[:, :4], atol=1e-12)


def test_half_precision_changes_which_tokens_are_best_and_little_else() -> None:
    """With a query for every token the losses are those of float32; among few, near scores would change them by 5 %."""
    detector = tiny("rt_detr_tiny", num_queries=200).train()
    images, targets = random_batch()
    with torch.no_grad():
        expected = detector.criterion(detector(images), targets)
        with torch.autocast("cpu", torch.bfloat16):
            found = detector.criterion(detector(images), targets)
    assert {loss.dtype for loss in found.values()} == {torch.float32}
    totals = [float(detector.criterion.total(losses)) for losses in (found, expected)]
    assert totals[0] != totals[1]
    assert totals[0] == pytest.approx(totals[1], rel=0.02)


def test_the_encoder_may_be_wider_than_the_decoder() -> None:
    detector = tiny("rt_detr_tiny", encoder_dim=64).eval()
    images = random_batch()[0]
    with torch.no_grad():
        out = detector(images)
    assert (out.tokens.features.shape[-1], out.encoded.memory.shape[-1]) == (64, 32)


def test_the_encoder_goes_with_any_number_of_levels() -> None:
    for levels, finest in ((1, 32), (2, 16), (4, 8), (5, 4)):
        options = {"encoder": "hybrid", "num_levels": levels, "finest_stride": finest, "num_queries": 8}
        check_trains(tiny("dino_tiny", **options))
