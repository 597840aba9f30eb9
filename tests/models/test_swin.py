"""Swin backbones: the official detection code's windows, its names, its frozen stages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from golden_files import golden, official_detector
from reference.seeded import seeded_checkpoint
from torch import Tensor, nn

from detrbench import models
from detrbench.errors import CheckpointError
from detrbench.models.backbones.swin import FOREIGN, SwinBackbone, WindowAttention
from detrbench.models.checkpoints.adapter import Adapter
from detrbench.models.checkpoints.swin import swin_rules


def backbone(**options: float) -> SwinBackbone:
    torch.manual_seed(0)
    arguments = {"finest_stride": 8, "window_size": 7, "drop_path": 0.0, "swin_frozen_stages": 0, **options}
    return SwinBackbone(12, (2, 2, 2, 2), (1, 2, 3, 6), **arguments).double().eval()  # type: ignore[arg-type]


def test_equals_torchvision_where_no_map_is_a_single_window() -> None:
    ours = backbone()
    theirs = torchvision.models.SwinTransformer([4, 4], 12, [2, 2, 2, 2], [1, 2, 3, 6], [7, 7], num_classes=1)
    theirs = theirs.double().eval()
    state = {name: tensor.reshape(theirs.state_dict()[name].shape) for name, tensor in ours.body.state_dict().items()}
    assert set(theirs.load_state_dict(state, strict=False).missing_keys) <= {
        "norm.weight",
        "norm.bias",
        "head.weight",
        "head.bias",
    }
    images = torch.randn(2, 3, 264, 300).double()
    with torch.no_grad():
        levels = ours(images)
        x = images
        for index, stage in enumerate(theirs.features):
            x = stage(x)
            if index in (3, 5, 7):
                level = levels[(index - 3) // 2]
                expected = torch.nn.functional.layer_norm(x, x.shape[-1:]).permute(0, 3, 1, 2)
                assert torch.allclose(level, expected, atol=1e-10), index


def plain_attention(attention: WindowAttention, x: Tensor) -> Tensor:
    """The same by its definition, one pair of cells at a time: (H, W, C) -> (H, W, C)."""
    (height, width, channels), window, shift = x.shape, attention.window_size[0], attention.shift_size[0]
    heads, rows, columns = attention.num_heads, -(-height // window) * window, -(-width // window) * window
    padded = x.new_zeros(rows, columns, channels)
    padded[:height, :width] = x
    query, key, value = attention.qkv(padded).view(rows, columns, 3, heads, -1).unbind(2)
    mixed = torch.zeros_like(padded)
    cells = [(y, x) for y in range(rows) for x in range(columns)]

    def place(cell: tuple[int, int]) -> tuple[int, ...]:
        """Where rolling puts a cell."""
        return (cell[0] - shift) % rows, (cell[1] - shift) % columns

    def strip(position: int, size: int) -> int:
        return (position >= size - window) + (shift > 0 and position >= size - shift)

    for cell in cells:
        y, x_ = place(cell)
        others = [o for o in cells if (place(o)[0] // window, place(o)[1] // window) == (y // window, x_ // window)]
        logits = []
        for other in others:
            v, u = place(other)
            row = (y - v + window - 1) * (2 * window - 1) + (x_ - u + window - 1)
            logit = (query[cell] * key[other]).sum(-1) * (channels // heads) ** -0.5
            logit = logit + attention.relative_position_bias_table[row]
            same = (strip(y, rows), strip(x_, columns)) == (strip(v, rows), strip(u, columns))
            logits.append(logit if same else logit + FOREIGN)
        weights = torch.stack(logits).softmax(0)  # (n, heads)
        mixed[cell] = sum(w[:, None] * value[other] for w, other in zip(weights, others)).flatten()
    return attention.proj(mixed)[:height, :width]


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("size", [(3, 4), (4, 4), (4, 9), (7, 6)])
def test_windows_by_their_definition(size: tuple[int, int], shift: int) -> None:
    # Up to (4, 9) at least one direction is a single window, which torchvision would not shift.
    torch.manual_seed(0)
    attention = WindowAttention(6, [4, 4], [shift, shift], 2).double().eval()
    nn.init.normal_(attention.relative_position_bias_table)
    x = torch.randn(2, *size, 6).double()
    with torch.no_grad():
        ours = attention(x)
        for image, mixed in zip(x, ours):
            assert torch.allclose(mixed, plain_attention(attention, image), atol=1e-12)


def test_sizes_are_rounded_up() -> None:
    levels = backbone()(torch.randn(1, 3, 65, 130).double())
    assert [tuple(level.shape) for level in levels] == [(1, 24, 9, 17), (1, 48, 5, 9), (1, 96, 3, 5)]


def test_frozen_stages_stay_as_they_are() -> None:
    body = backbone(swin_frozen_stages=2, drop_path=0.5).train().body
    assert [any(p.requires_grad for p in stage.parameters()) for stage in body.features] == [False] * 3 + [True] * 5
    assert [stage.training for stage in body.features] == [False] * 3 + [True] * 5
    assert all(p.requires_grad for p in backbone().parameters())


def test_official_names_and_the_index_in_them(tmp_path: Path) -> None:
    detector = models.create("deformable_detr_swin_t", num_encoder_layers=1, num_decoder_layers=1)
    rules = swin_rules(r"backbone\.")
    names = {
        "backbone.patch_embed.norm.bias": "backbone.body.features.0.2.bias",
        "backbone.layers.2.blocks.5.mlp.fc2.weight": "backbone.body.features.5.5.mlp.3.weight",
        "backbone.layers.0.blocks.1.attn.qkv.bias": "backbone.body.features.1.1.attn.qkv.bias",
        "backbone.layers.2.downsample.norm.weight": "backbone.body.features.6.norm.weight",
        "backbone.norm3.weight": "backbone.norms.2.weight",
    }
    for official, ours in names.items():
        translated, _ = Adapter("test", "", rules).translate({official: torch.zeros(1)}, detector)
        assert list(translated) == [ours]
    state = detector.state_dict()
    name = "backbone.body.features.1.0.attn.relative_position_index"
    state[name] = state[name] + 1
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=r"1 different: .*relative_position_index"):
        models.load_checkpoint(detector, tmp_path / "m.pth")


@pytest.mark.full
def test_official_tensors_arrive_where_they_belong(tmp_path: Path) -> None:
    detector = official_detector("sp_swint_deformable", tmp_path)
    official = seeded_checkpoint(golden("sp_swint_deformable"))
    assert torch.equal(
        detector.backbone.body.features[5][3].mlp[3].weight,
        official["backbone.0.body.layers.2.blocks.3.mlp.fc2.weight"],
    )
    assert torch.equal(detector.backbone.norms[1].bias, official["backbone.0.body.norm2.bias"])


@pytest.mark.full
@pytest.mark.parametrize("short", ["swin_t", "swin_b", "swin_b_384", "swin_l"])
def test_every_size_builds(short: str) -> None:
    with torch.device("meta"):
        detector = models.create(f"deformable_detr_{short}", num_encoder_layers=1, num_decoder_layers=1).eval()
    assert detector.backbone.channels[0] == {"t": 192, "b": 256, "l": 384}[short[5]]
    assert detector(torch.zeros(1, 3, 96, 130, device="meta")).pred_boxes.shape == (1, 300, 4)
