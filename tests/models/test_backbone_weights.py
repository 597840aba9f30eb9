"""ImageNet weights: files of every published format load strictly, and compute what their authors' networks do."""

from __future__ import annotations

import copy
import functools
import itertools
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from golden_files import golden
from imagenet_files import SWIN, swin_shapes, write_detectron2, write_scrl, write_swin, write_torchvision
from torch import Tensor

from detrbench import models
from detrbench.data.loading import Batch
from detrbench.errors import CheckpointError
from detrbench.models.backbones import imagenet
from detrbench.models.checkpoints.reading import read
from detrbench.models.detector import Detector
from detrbench.training import optimiser
from detrbench.training.recipe import Recipe
from detrbench.training.step import Part, train_step
from detrbench.weights import catalogue

SHALLOW = {
    "num_encoder_layers": 1,
    "num_decoder_layers": 1,
    "hidden_dim": 32,
    "ffn_dim": 32,
    "num_queries": 5,
    "num_classes": 3,
    "finest_stride": 4,
}


@functools.cache
def detector(short: str, window_size: int | None = None) -> Detector:
    """One a backbone for all tests: what is loaded replaces whatever a test before left there."""
    torch.manual_seed(0)
    frozen = {"frozen_stages": 2} if short.startswith("r") else {"swin_frozen_stages": 2}
    window = {"window_size": window_size} if window_size else {}
    return models.create(f"deformable_detr_{short}", **SHALLOW, **frozen, **window).double().eval()


def image(height: int, width: int) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1)).double()


WRITERS = {"torchvision": write_torchvision, "detectron2": write_detectron2, "SCRL": write_scrl}


@pytest.mark.parametrize(
    ("short", "name", "names"),
    [
        ("r50", "resnet50", "torchvision"),
        ("r50", "resnet50", "detectron2"),
        ("r50", "resnet50", "SCRL"),
        pytest.param("r101", "resnet101", "torchvision", marks=pytest.mark.full),
    ],
)
def test_a_resnet_computes_what_torchvisions_does(tmp_path: Path, short: str, name: str, names: str) -> None:
    path = tmp_path / ("w.pkl" if names == "detectron2" else "w.pth")
    state = WRITERS[names](name, path)
    ours = detector(short)
    report = models.load_backbone(ours, path)
    assert report.adapter == names
    # The classifier, or what SCRL trains with; a counter of each batch norm: the stem's, three a block, one a stage.
    blocks = {"resnet50": 16, "resnet101": 33}[name]
    assert len(report.ignored) == 2 + 1 + 3 * blocks + 4
    assert report.loaded == len(state) - len(report.ignored)
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)().eval()
    theirs.load_state_dict({k: t.double() if t.is_floating_point() else t for k, t in state.items()}, assign=True)
    x = image(70, 93)
    with torch.no_grad():
        levels = ours.backbone(x)
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for stage, level in zip((theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4), levels, strict=True):
            x = stage(x)
            assert torch.allclose(level, x, rtol=1e-9, atol=1e-9 * float(x.abs().max()))


def official_windows(state: Mapping[str, Tensor], name: str, x: Tensor, heads: int, window: int, shift: int) -> Tensor:
    """Attention of one block as the detection code computes it, window by window: (H, W, C) -> (H, W, C)."""
    height, width, channels = x.shape
    rows, columns = -(-height // window) * window, -(-width // window) * window
    x = F.pad(x, (0, 0, 0, columns - width, 0, rows - height)).roll((-shift, -shift), (0, 1))
    strips = torch.zeros(rows, columns)
    if shift:  # what rolling brings together is told apart by the strip that it came from
        cuts = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
        for number, (above, beside) in enumerate(itertools.product(cuts, cuts)):
            strips[above, beside] = number
    table = state[f"{name}.relative_position_bias_table"]
    bias = table[state[f"{name}.relative_position_index"].flatten()].view(window**2, window**2, heads)
    out = torch.zeros_like(x)
    for top in range(0, rows, window):
        for left in range(0, columns, window):
            here = (slice(top, top + window), slice(left, left + window))
            cells, strip = x[here].reshape(window**2, channels), strips[here].flatten()
            mixed = F.linear(cells, state[f"{name}.qkv.weight"], state[f"{name}.qkv.bias"]).chunk(3, 1)
            query, key, value = (part.view(window**2, heads, -1).transpose(0, 1) for part in mixed)
            logits = query @ key.transpose(1, 2) * (channels // heads) ** -0.5 + bias.permute(2, 0, 1)
            logits = logits - 100.0 * (strip[:, None] != strip[None])
            seen = (logits.softmax(-1) @ value).transpose(0, 1).reshape(window**2, channels)
            seen = F.linear(seen, state[f"{name}.proj.weight"], state[f"{name}.proj.bias"])
            out[here] = seen.view(window, window, channels)
    return out.roll((shift, shift), (0, 1))[:height, :width]


def official_features(state: Mapping[str, Tensor], images: Tensor, file: str) -> list[Tensor]:
    """(H, W, C) maps at stride 4, 8, 16, 32, before any output norm, from Microsoft's names alone."""
    _, depths, heads, window, _ = SWIN[file]

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    images = F.pad(images, (0, -images.shape[3] % 4, 0, -images.shape[2] % 4))
    x = F.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=4)
    x, maps = norm("patch_embed.norm", x[0].permute(1, 2, 0)), []
    for stage, depth in enumerate(depths):
        for block in range(depth):
            name = f"layers.{stage}.blocks.{block}"
            shift = window // 2 if block % 2 else 0
            x = x + official_windows(state, f"{name}.attn", norm(f"{name}.norm1", x), heads[stage], window, shift)
            x = x + linear(f"{name}.mlp.fc2", F.gelu(linear(f"{name}.mlp.fc1", norm(f"{name}.norm2", x))))
        maps.append(x)
        if stage < 3:
            x = F.pad(x, (0, 0, 0, x.shape[1] % 2, 0, x.shape[0] % 2))
            x = torch.cat([x[0::2, 0::2], x[1::2, 0::2], x[0::2, 1::2], x[1::2, 1::2]], -1)
            x = F.linear(
                norm(f"layers.{stage}.downsample.norm", x), state[f"layers.{stage}.downsample.reduction.weight"]
            )
    return maps


def test_a_swin_computes_what_the_official_layout_does(tmp_path: Path) -> None:
    file = "swin_tiny_patch4_window7_224"
    state = write_swin(file, tmp_path / "w.pth")
    ours = detector("swin_t")
    report = models.load_backbone(ours, tmp_path / "w.pth")
    assert report.adapter == "Swin-Transformer"
    # norm, head, and the masks of the shifted blocks, which the last stage has none of: its map is one window.
    assert len(report.ignored) == 4 + 1 + 1 + 3
    double = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    x = image(40, 45)
    with torch.no_grad():
        expected = official_features(double, x, file)
        levels = ours.backbone(x)
    for level, theirs in zip(levels, expected, strict=True):
        # A detector norms each level anew, with gains of one and without bias until it is trained.
        normed = F.layer_norm(theirs, theirs.shape[-1:])
        assert torch.allclose(level[0].permute(1, 2, 0), normed, atol=1e-9)


@pytest.mark.parametrize("golden_name", ["sp_swint_deformable"])
def test_names_of_the_made_up_swin_are_those_of_the_official_code(golden_name: str) -> None:
    prefix, shapes = "backbone.0.body.", golden(golden_name)["shapes"]
    official = {name.removeprefix(prefix): tuple(shape) for name, shape in shapes.items() if name.startswith(prefix)}
    made_up = dict(swin_shapes("swin_tiny_patch4_window7_224"))
    # A detector has no classifier and makes its masks as it goes; each of its levels has a norm.
    ours = {n: s for n, s in made_up.items() if not n.startswith(("norm.", "head.")) and not n.endswith("attn_mask")}
    assert ours == {name: shape for name, shape in official.items() if not name.startswith("norm")}


@pytest.mark.full
@pytest.mark.parametrize(
    ("short", "options", "file"),
    [
        ("swin_b", {}, "swin_base_patch4_window7_224_22k"),
        ("swin_b_384", {}, "swin_base_patch4_window12_384_22k"),
        ("swin_l", {"window_size": 7}, "swin_large_patch4_window7_224_22k"),
        ("swin_l", {}, "swin_large_patch4_window12_384_22k"),
    ],
)
def test_larger_swins_load(tmp_path: Path, short: str, options: dict[str, Any], file: str) -> None:
    state = write_swin(file, tmp_path / "w.pth")
    ours = detector(short, **options)
    (name,) = imagenet.published(ours.spec.parts["backbone"], ours.spec.options)
    assert catalogue.get(name).file == f"{file}.pth"
    models.load_backbone(ours, tmp_path / "w.pth")
    last = ours.backbone.body.features[5][17].mlp[3].weight
    assert torch.equal(last, state["layers.2.blocks.17.mlp.fc2.weight"])


def saved(state: Mapping[str, Tensor], path: Path) -> Path:
    torch.save(dict(state), path)
    return path


def test_whatever_does_not_fit_is_listed_and_nothing_is_loaded(tmp_path: Path) -> None:
    state = write_torchvision("resnet50", tmp_path / "w.pth")
    del state["layer3.5.bn2.running_var"]
    state |= {"layer3.6.conv1.weight": torch.zeros(2), "extra": torch.zeros(2)}
    state["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    ours = detector("r50")
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    with pytest.raises(CheckpointError, match="does not fit backbone resnet50") as caught:
        models.load_backbone(ours, saved(state, tmp_path / "w.pth"))
    for part in (
        "1 missing: backbone.body.layer3.5.bn2.running_var",
        "2 unexpected: backbone.body.layer3.6.conv1.weight, extra",
        "1 mis-shaped: backbone.body.conv1.weight (64, 1, 7, 7) for (64, 3, 7, 7)",
    ):
        assert part in caught.value.message
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items())


def test_another_network_or_window_is_refused(tmp_path: Path) -> None:
    write_torchvision("resnet50", tmp_path / "r50.pth")
    with pytest.raises(CheckpointError, match="does not fit backbone swin_tiny"):
        models.load_backbone(detector("swin_t"), tmp_path / "r50.pth")
    state = write_swin("swin_tiny_patch4_window7_224", tmp_path / "swin.pth")
    with pytest.raises(CheckpointError, match=r"mis-shaped: .*relative_position_bias_table"):
        models.load_backbone(detector("swin_t", window_size=12), tmp_path / "swin.pth")
    name = "layers.0.blocks.0.attn.relative_position_index"
    with pytest.raises(CheckpointError, match="1 different"):
        models.load_backbone(detector("swin_t"), saved(state | {name: state[name] + 1}, tmp_path / "swin.pth"))


def test_a_detectors_file_is_no_backbones(tmp_path: Path) -> None:
    """Nor are caffe2's weights, which are other numbers than torchvision's."""
    for names in (["neck.level_embed"], ["conv1_w", "res2_0_branch2a_w"]):
        with pytest.raises(CheckpointError, match="parameter names of no published backbone"):
            models.load_backbone(detector("r50"), saved(dict.fromkeys(names, torch.zeros(1)), tmp_path / "w.pth"))


class Hostile:
    """Would create a folder when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_of_arrays_is_not_run(tmp_path: Path) -> None:
    hostile = {"model": {"stem.conv1.weight": np.zeros(2, np.float32)}, "__author__": Hostile(tmp_path / "owned")}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(hostile))
    with pytest.raises(CheckpointError, match="could run code"):
        models.load_backbone(detector("r50"), tmp_path / "w.pkl")
    hidden = np.array([Hostile(tmp_path / "owned")], dtype=object)
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": {"stem.conv1.weight": hidden}}))
    with pytest.raises(CheckpointError, match="could run code"):
        models.load_backbone(detector("r50"), tmp_path / "w.pkl")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_of_every_age_are_read(tmp_path: Path, protocol: int) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": {"a": array}}, protocol))
    state, _ = read(tmp_path / "w.pkl")
    assert torch.equal(state["a"], torch.from_numpy(array))


def test_a_truncated_pickle_is_named(tmp_path: Path) -> None:
    whole = pickle.dumps({"model": {"a": np.zeros(1000, np.float32)}})
    for keep in (0, 1, 100, len(whole) - 10):
        (tmp_path / "w.pkl").write_bytes(whole[:keep])
        with pytest.raises(CheckpointError, match=r"w\.pkl: (?:truncated|damaged)"):
            models.load_backbone(detector("r50"), tmp_path / "w.pkl")


@pytest.mark.parametrize(
    ("short", "write", "frozen"),
    [
        ("r50", lambda path: write_torchvision("resnet50", path), ("conv1.", "bn1.", "layer1.")),
        pytest.param(
            "swin_t",
            lambda path: write_swin("swin_tiny_patch4_window7_224", path),
            ("features.0.", "features.1.", "features.2."),
            marks=pytest.mark.full,
        ),
    ],
)
def test_training_changes_nothing_that_is_frozen(
    tmp_path: Path, short: str, write: Callable[[Path], Any], frozen: tuple[str, ...]
) -> None:
    write(tmp_path / "w.pth")
    ours = copy.deepcopy(detector(short)).float().train()
    models.load_backbone(ours, tmp_path / "w.pth")
    before = {name: tensor.clone() for name, tensor in ours.backbone.body.state_dict().items()}
    batch = one_batch()
    train_step(ours, optimiser.build(ours, Recipe(lr_backbone=0.1, weight_decay=0.1)), Part.of([batch]), 0.0, 1.0)
    changed = {n for n, tensor in ours.backbone.body.state_dict().items() if not torch.equal(tensor, before[n])}
    assert not [name for name in changed if name.startswith(frozen) or ".bn" in name or "downsample.1" in name]
    assert [name for name in changed if name.startswith(("layer2", "features.3"))]


def one_batch() -> Batch:
    target = {"labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.4, 0.4]])}
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    return Batch(image(64, 64).float(), masks, [target], [1], torch.tensor([[64, 64]]))


def test_what_is_published() -> None:
    names = [name for group in imagenet.all_published() for name in group]
    assert len(set(names)) == 13
    assert {catalogue.get(name).file for name in names} >= {f"{file}.pth" for file in SWIN}
    assert imagenet.published("tiny", {}) == ()
    assert imagenet.published("swin_tiny", {"window_size": 12}) == ()
