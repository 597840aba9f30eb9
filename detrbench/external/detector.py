"""What a detector from elsewhere says of itself, and the face under which it is measured like one of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detrbench.data.sizes import resized_size
from detrbench.data.transforms import Eval, Stretch
from detrbench.errors import CheckpointError, NotFinite, UsageError
from detrbench.models import checkpoints
from detrbench.models.detections import Detections
from detrbench.words import shown
from detrbench.worker.building import called, filled

Arguments = Callable[[Tensor], tuple[Any, ...]]
ToDetections = Callable[[Any, tuple[int, int]], Sequence[Detections]]
TOP = 300  # detections of an image, where their number has to be named: as many as the protocol `common` scores


def load_state(module: nn.Module, path: Path) -> None:
    """Fills a module from a file that holds its `state_dict()`, as it is or where training code puts it.

    Raises:
        CheckpointError: the file cannot be read, or is of another module; the message names the difference.
    """
    state, _ = checkpoints.read(path)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        first = [line.strip() for line in str(error).splitlines()[1:3]]
        raise CheckpointError(
            f"{path}: weights of another module: {shown(' '.join(first))}",
            hint="give the ExternalDetector a `load_weights` that knows this file",
        ) from error


@dataclass(frozen=True)
class ExternalDetector:
    """A detector from elsewhere. The module is all that its cost needs; the rest says more of it, or gives AP.

    Args:
        module: what is counted and timed; it is put into eval mode. It takes a batch of images, (B, 3, H, W) float32,
            normalised with `native`'s mean and deviation.
        parts: name of a module within -> the part of the detector that it belongs to: `{"model.encoder": "encoder",
            "class_embed": "heads", "bbox_embed": "heads"}`. What stands in none is "other".
        native: how the detector's own images come about: `Eval(shortest, longest)` keeps their proportions,
            `Stretch(height, width)` does not. AP is measured on such images, and cost under the protocol `native`.
        multiple: the sides of an image have to be multiples of it; zeros at the right and the bottom fill up the rest.
        arguments: what the module is called with, from a batch of images.
        detections: what the module returned, and the (height, width) of the images that it was given -> for each image
            its detections: boxes x1, y1, x2, y2 in pixels of that image, scores, labels. None: AP is not measured.
        category_ids: label -> category id of the data. None: labels mean what they mean to detectors of ours, by the
            scale's `labels`.
        load_weights: fills the module from the file that a row names as its `checkpoint`.
    """

    module: nn.Module
    parts: Mapping[str, str] = field(default_factory=dict)
    native: Eval | Stretch = field(default_factory=Eval)
    multiple: int = 1
    arguments: Arguments = lambda images: (images,)
    detections: ToDetections | None = None
    category_ids: Mapping[int, int] | None = None
    load_weights: Callable[[nn.Module, Path], None] = load_state


class Adapted(nn.Module):
    """An external detector as measures meet it: called, split into parts and moved as a detector of ours.

    Args:
        external: what it is.
        name: of it, for messages.

    Raises:
        UsageError: a part that is no module of it.
    """

    def __init__(self, external: ExternalDetector, name: str) -> None:
        super().__init__()
        self.module, self.external, self.name = external.module, external, name
        known = {each for each, _ in external.module.named_modules()}
        for inner in external.parts:
            if inner not in known:
                near = ", ".join(sorted(each for each, _ in external.module.named_children()))
                raise UsageError(f"{name}: parts: no module {inner!r}", hint=f"modules at its top: {near}")

    @property
    def parts(self) -> dict[str, list[nn.Module]]:
        """The modules of each part, by its name."""
        found: dict[str, list[nn.Module]] = {}
        for inner, part in self.external.parts.items():
            found.setdefault(part, []).extend(called(self.module.get_submodule(inner)))
        return found

    @property
    def native_size(self) -> tuple[int, int]:
        """(height, width) of its own images; where these keep their proportions, of a photograph of 4:3."""
        native = self.external.native
        if isinstance(native, Stretch):
            return native.height, native.width
        width, height = resized_size(4, 3, native.shortest, native.longest)
        return height, width

    @property
    def remark(self) -> str:
        """What the rule that a figure carries says more of this detector; empty where that is nothing."""
        multiple = self.external.multiple
        return f"; sides filled up to multiples of {multiple} pixels" if multiple > 1 else ""

    def forward(self, images: Tensor, masks: Tensor | None = None, *, outputs: str | None = None) -> Any:
        """What the module returns for (B, 3, H, W) images without padding, whatever outputs a detector of ours had."""
        return self.module(*self.external.arguments(filled(images, self.external.multiple)))

    @torch.no_grad()
    def detections(self, out: Any, images: Tensor, sizes: Tensor, names: Sequence[object]) -> list[Detections]:
        """What was detected in each image, best first, in pixels of the stored image.

        Args:
            out: from `forward`.
            images: (B, 3, H, W) that it was called with.
            sizes: (B, 2) height and width of the images as stored.
            names: of the images, for messages.

        Raises:
            UsageError: it says nothing of detections, or not of so many images, or in other shapes.
            NotFinite: a score or a box is no number.
        """
        if self.external.detections is None:
            raise UsageError(f"{self.name}: its ExternalDetector has no `detections`, so there is no AP")
        height, width = images.shape[-2:]
        multiple = self.external.multiple
        found = list(self.external.detections(out, (height + -height % multiple, width + -width % multiple)))
        if len(found) != len(names):
            raise UsageError(f"{self.name}: detections: expected those of {len(names)} images, got {len(found)}")
        given = sizes.new_tensor([width, height, width, height])
        scales = sizes.double().flip(-1).repeat(1, 2) / given  # (B, 4) for x, y, x, y
        return [self._checked(each, scale, name) for each, scale, name in zip(found, scales, names)]

    def _checked(self, found: Detections, scale: Tensor, name: object) -> Detections:
        number = len(found.scores)
        if found.labels.shape != (number,) or found.boxes.shape != (number, 4):
            shapes = f"{tuple(found.scores.shape)}, {tuple(found.labels.shape)}, {tuple(found.boxes.shape)}"
            raise UsageError(f"{self.name}: expected scores (n,), labels (n,), boxes (n, 4), got {shapes}")
        if not bool(found.scores.isfinite().all() and found.boxes.isfinite().all()):
            raise NotFinite(f"{name}: what {self.name} predicts is not finite", "its weights are broken or diverged")
        order = found.scores.argsort(descending=True, stable=True)
        boxes = found.boxes.double() * scale.to(found.boxes.device)
        return Detections(found.scores[order], found.labels[order], boxes[order])


def remark_of(detector: nn.Module) -> str:
    """What the rule of a figure says more of a detector; empty for one of ours."""
    return detector.remark if isinstance(detector, Adapted) else ""
