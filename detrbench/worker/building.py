"""A detector from a user's function, in an interpreter that need not know detrbench.

What the function returns is a `torch.nn.Module`, or any object with the attributes of `detrbench.external`'s
`ExternalDetector`, of which only `module` is needed.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import identity


class Built:
    """A detector with all that is said of it; what the object does not say is as in `ExternalDetector`."""

    def __init__(self, made: Any) -> None:
        self.module: nn.Module = made if isinstance(made, nn.Module) else made.module
        self.parts: Mapping[str, str] = dict(getattr(made, "parts", {}))
        self.native = _native(getattr(made, "native", None))
        self.category_ids: Mapping[int, int] | None = getattr(made, "category_ids", None)
        self.multiple: int = getattr(made, "multiple", 1)
        self._arguments = getattr(made, "arguments", None) or _images_alone
        self._detections: Any = getattr(made, "detections", None)
        self._load_weights = getattr(made, "load_weights", None) or _load_state

    @property
    def detects(self) -> bool:
        """Whether it says how outputs become detections."""
        return self._detections is not None

    def of(self, module: nn.Module) -> Built:
        """The same said of another module."""
        other = copy.copy(self)
        other.module = module
        return other

    def load(self, path: Path) -> None:
        """Fills the module from a file."""
        self._load_weights(self.module, path)

    def run(self, images: Tensor) -> Any:
        """What the module returns for (B, 3, H, W) images."""
        return self.module(*self._arguments(filled(images, self.multiple)))

    def detect(self, images: Tensor) -> list[dict[str, Any]] | None:
        """Scores, labels and boxes (x1, y1, x2, y2 in pixels of these images) of each image, as lists."""
        out, (height, width) = self.run(images), images.shape[-2:]
        return [_plain(found) for found in self._detections(out, (height, width))] if self.detects else None


def build(name: str, options: Mapping[str, Any]) -> Built:
    """Calls the function `package.module:function` with these options."""
    identity.look_here()
    module, _, function = name.partition(":")
    made = getattr(importlib.import_module(module), function)(**options)
    if not isinstance(made, nn.Module) and not isinstance(getattr(made, "module", None), nn.Module):
        kind = type(made).__name__
        raise TypeError(f"{name}: expected a torch.nn.Module, or an object with one as `module`, got {kind}")
    return Built(made)


def _images_alone(images: Tensor) -> tuple[Tensor]:
    return (images,)


def _native(said: Any) -> dict[str, Any] | None:
    """What is said of the detector's own images, by attributes or keys; None where nothing is."""
    if said is None:
        return None
    attributes = {name: getattr(said, name) for name in _NATIVE if hasattr(said, name)}
    keyed = said if isinstance(said, Mapping) else attributes
    found = {name: list(each) if isinstance(each, tuple) else each for name, each in keyed.items()}
    if not {"shortest"} <= set(found) and not {"height", "width"} <= set(found):
        got = ", ".join(map(str, found)) or "none of them"
        raise ValueError(f"native: expected shortest and longest, or height and width, got {got}")
    return found


_NATIVE = ("shortest", "longest", "height", "width", "mean", "std")


def _load_state(module: nn.Module, path: Path) -> None:
    if path.suffix == ".safetensors":
        state = importlib.import_module("safetensors.torch").load_file(str(path))
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict(state.get("model", state.get("state_dict", state)))


def _plain(found: Any) -> dict[str, Any]:
    """An image's detections, attributes or keys of them, as lists."""
    columns = {name: found[name] if isinstance(found, dict) else getattr(found, name) for name in _COLUMNS}
    return {name: column.double().tolist() for name, column in columns.items()}


_COLUMNS = ("scores", "labels", "boxes")


def called(module: nn.Module) -> Iterator[nn.Module]:
    """What runs of a module: a list of modules never does, those in it do."""
    if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        for child in module.children():  # each once, however often it is listed
            yield from called(child)
    else:
        yield module


def modules_by_part(built: Built) -> list[tuple[str, nn.Module]]:
    """(part, a module of it that runs), in the order in which the function names them."""
    inner = [(part, built.module.get_submodule(name)) for name, part in built.parts.items()]
    return [(part, each) for part, module in inner for each in called(module)]


def part_names(built: Built) -> dict[str, str]:
    """Module name -> part, of all modules of parts that run."""
    names = {id(module): name for name, module in built.module.named_modules()}
    return {names[id(module)]: part for part, module in modules_by_part(built)}


def filled(images: Tensor, multiple: int) -> Tensor:
    """(B, 3, H, W) with zeros at the right and the bottom, up to sides that are multiples."""
    down, right = (-side % multiple for side in images.shape[-2:])
    return functional.pad(images, (0, right, 0, down)) if down or right else images
