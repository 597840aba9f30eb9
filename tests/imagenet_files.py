"""Made-up files of ImageNet weights: names, shapes and containers as published, seeded values."""

from __future__ import annotations

import functools
import pickle
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
import torchvision
from reference.seeded import relative_position_index
from torch import Tensor

# Channels at stride 4, blocks and heads of each stage, window, classes: Microsoft's configs/swin_*.yaml.
SWIN = {
    "swin_tiny_patch4_window7_224": (96, (2, 2, 6, 2), (3, 6, 12, 24), 7, 1000),
    "swin_base_patch4_window7_224_22k": (128, (2, 2, 18, 2), (4, 8, 16, 32), 7, 21841),
    "swin_base_patch4_window12_384_22k": (128, (2, 2, 18, 2), (4, 8, 16, 32), 12, 21841),
    "swin_large_patch4_window7_224_22k": (192, (2, 2, 18, 2), (6, 12, 24, 48), 7, 21841),
    "swin_large_patch4_window12_384_22k": (192, (2, 2, 18, 2), (6, 12, 24, 48), 12, 21841),
}


@functools.cache
def resnet_state(name: str) -> dict[str, Tensor]:
    """A ResNet under torchvision's names and shapes, batch counters and classifier included."""
    with torch.device("meta"):
        shapes = {key: tensor.shape for key, tensor in getattr(torchvision.models, name)().state_dict().items()}
    return {key: _small(key, shape) for key, shape in shapes.items()}


def write_torchvision(name: str, path: Path) -> dict[str, Tensor]:
    """As torchvision publishes it; returns what the file holds."""
    state = dict(resnet_state(name))
    torch.save(state, path)
    return state


def write_detectron2(name: str, path: Path) -> dict[str, Tensor]:
    """The same as detectron2 converts it: its names, NumPy arrays, a plain pickle; returns torchvision's names."""
    state = resnet_state(name)
    renamed = {_detectron2(key): tensor.numpy() for key, tensor in state.items()}
    path.write_bytes(pickle.dumps({"model": renamed, "__author__": "torchvision", "matching_heuristics": True}))
    return state


def write_scrl(name: str, path: Path) -> dict[str, Tensor]:
    """The same as kakaobrain/scrl saves its training: parts of the network by place, without a classifier."""
    state = resnet_state(name)
    places = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    parts = ((key.partition("."), tensor) for key, tensor in state.items() if not key.startswith("fc."))
    online = {f"encoder.{places[part]}.{rest}": tensor for (part, _, rest), tensor in parts}
    online |= {f"projector.layers.0.{key}": torch.ones(2) for key in ("weight", "bias")}
    saved = {"tag": "1000", "epoch": 1000, "max_eval_score": 70.66, "online_network_state_dict": online}
    torch.save({**saved, "predictor_state_dict": {"layers.0.weight": torch.ones(2)}}, path)
    return state


def _detectron2(name: str) -> str:
    if not name.startswith("layer"):
        name = f"stem.{name}"
    for stage in range(1, 5):
        name = name.replace(f"layer{stage}", f"res{stage + 1}")
    for number in (1, 2, 3):
        name = name.replace(f"bn{number}", f"conv{number}.norm")
    return name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


def swin_shapes(file: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a Swin Transformer's classifier, as Microsoft's models/swin_transformer.py registers them."""
    width, depths, heads, window, classes = SWIN[file]
    side = (224 if window == 7 else 384) // 4
    yield from {"patch_embed.proj.weight": (width, 3, 4, 4), "patch_embed.proj.bias": (width,)}.items()
    yield from _norm("patch_embed.norm", width)
    for stage, depth in enumerate(depths):
        dim = width * 2**stage
        for block in range(depth):
            name = f"layers.{stage}.blocks.{block}"
            if block % 2 and side > window:  # a map that is one window is not shifted in the classifier
                yield f"{name}.attn_mask", ((side // window) ** 2, window**2, window**2)
            yield from _norm(f"{name}.norm1", dim)
            yield f"{name}.attn.relative_position_bias_table", ((2 * window - 1) ** 2, heads[stage])
            yield f"{name}.attn.relative_position_index", (window**2, window**2)
            yield from _linear(f"{name}.attn.qkv", dim, 3 * dim)
            yield from _linear(f"{name}.attn.proj", dim, dim)
            yield from _norm(f"{name}.norm2", dim)
            yield from _linear(f"{name}.mlp.fc1", dim, 4 * dim)
            yield from _linear(f"{name}.mlp.fc2", 4 * dim, dim)
        if stage < 3:
            yield f"layers.{stage}.downsample.reduction.weight", (2 * dim, 4 * dim)
            yield from _norm(f"layers.{stage}.downsample.norm", 4 * dim)
            side //= 2
    yield from _norm("norm", 8 * width)
    yield from _linear("head", 8 * width, classes)


@functools.cache
def swin_state(file: str) -> dict[str, Tensor]:
    """A Swin Transformer under Microsoft's names and shapes."""
    return {
        name: relative_position_index(SWIN[file][3])
        if name.endswith("_index")
        else torch.zeros(shape)
        if name.endswith("attn_mask")
        else _small(name, shape)
        for name, shape in swin_shapes(file)
    }


def write_swin(file: str, path: Path) -> dict[str, Tensor]:
    """As Microsoft publishes it: the state under "model"; returns what the file holds."""
    torch.save({"model": swin_state(file)}, path)
    return dict(swin_state(file))


def _small(name: str, shape: tuple[int, ...]) -> Tensor:
    """Values that depend on name and shape, of a size that a deep network neither kills nor blows up."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long)
    values = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if len(shape) > 1:
        return values * values[0].numel() ** -0.5
    return 0.1 * values + name.endswith(("weight", "running_var"))  # gains and variances lie around 1


def _norm(name: str, dim: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from ((f"{name}.weight", (dim,)), (f"{name}.bias", (dim,)))


def _linear(name: str, dim_in: int, dim_out: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from ((f"{name}.weight", (dim_out, dim_in)), (f"{name}.bias", (dim_out,)))
