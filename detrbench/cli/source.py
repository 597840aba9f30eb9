"""Where a detector for a user's own images comes from: a model and its checkpoint, or the folder of a trained cell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from detrbench.errors import DataError, UsageError
from detrbench.results import address
from detrbench.results.store import CellResult
from detrbench.weights import catalogue, named

if TYPE_CHECKING:
    from PIL import Image

    from detrbench.data import Sample
    from detrbench.weights.named import Weights


# What every command asks that runs a detector on a user's images.
Model = Annotated[str, typer.Argument(metavar="MODEL|SUITE:ID", help="A model, or a trained cell of the results.")]
Images = Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")]
Checkpoint = Annotated[
    str | None,
    typer.Option(
        metavar="WEIGHTS",
        help="A file, official or converted; a name from `detrbench weights list`; or hf:ORG/REPO/FILE.",
    ),
]
Data = Annotated[Path | None, typer.Option(metavar="PATH", help="A data set to take class names from.")]
Threshold = Annotated[float, typer.Option(min=0.0, max=1.0, help="Hide detections below this score.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]


class Source:
    """Which detector, with which weights, at which size (see `data.transforms.evaluated`), its classes by name."""

    def __init__(
        self,
        model: str,
        options: dict[str, Any],
        weights: Path | None,
        size: tuple[int, int, bool],
        names: dict[int, str],
    ) -> None:
        self.model, self.options, self.weights, self.size, self.names = model, options, weights, size, names

    @classmethod
    def of(
        cls, model: str, checkpoint: str | None, options: dict[str, Any], data: Path | None, results: Path
    ) -> Source:
        """What the command line names.

        Args:
            model: a model's name, or a cell's address (`results/address.py`).
            checkpoint: its weights; a cell has its own.
            options: on top of the model's, or the cell's; what they leave open is as released weights were trained.
            data: a data set whose class names are shown.
            results: the results folder in which an address is looked up.

        Raises:
            UsageError: no such model or cell, or no weights to be had.
        """
        if address.is_one(model):
            return cls._of_cell(address.one(model, results), checkpoint, options, data)
        from detrbench import models

        models.describe(model)  # an unknown name is refused as such
        if checkpoint is None:
            hint = "give --checkpoint WEIGHTS, or a trained cell (SUITE:ID) instead of a model"
            raise UsageError(f"{model}: random weights detect nothing", hint=hint)
        weights = named.find(checkpoint, "--checkpoint")
        options = weights.options(model, options)
        own = _own_names(weights.path)
        if own is not None:
            options = {"num_classes": len(own), **options}
        spec = models.resolve(model, options)
        if data is not None:
            own = _class_names({"data": "coco", "path": str(data)})
        names = _coco_names(spec.options.get("num_classes")) if own is None else own
        return cls(model, options, weights.path, models.describe(model).image_size, names)

    @classmethod
    def _of_cell(cls, result: CellResult, checkpoint: str | None, options: dict[str, Any], data: Path | None) -> Source:
        if result.cell.get("source"):
            hint = "name one of ours: detrbench list models"
            raise UsageError(f"{address.of(result)}: a detector from elsewhere", hint)
        weights = named.find(checkpoint, "--checkpoint") if checkpoint else _of_its_own(result)
        cell, resolved = result.cell, dict(result.cell["resolved"])
        options = weights.options(cell["model"], {**cell["options"], **options})
        names = _own_names(weights.path) if data is None else None
        if names is None:
            names = _class_names(resolved if data is None else {"data": "coco", "path": str(data)})
        chosen = {"num_classes": max(names) + 1, **options}
        return cls(cell["model"], chosen, weights.path, (*resolved["eval_size"], resolved.get("stretch", False)), names)

    def load(self, device: str) -> Any:
        """The detector in eval mode."""
        from detrbench import models

        detector = models.create(self.model, **self.options)
        if self.weights is not None:
            models.load_checkpoint(detector, self.weights)
        return detector.to(device).eval()


def _of_its_own(result: CellResult) -> Weights:
    """The weights that a cell was measured with: those that its suite names, else trained ones."""
    from detrbench.results.folder import CellFolder

    cell = result.cell
    if cell.get("checkpoint"):
        return named.find(str(cell["checkpoint"]), "checkpoint")
    official = catalogue.get(cell["official"]) if cell.get("official") else None
    here = named.here_of(official) if official else None
    if here is not None:
        return here
    trained = CellFolder(result.folder).weights
    if not trained.is_file():
        fetch = f", or {named.how_to_get(official)}" if official else ""
        raise UsageError(
            f"{address.of(result)}: no trained weights",
            hint=f"detrbench run trains its cell{fetch}; or give --checkpoint",
        )
    return named.find(str(trained), "weights")


def open_image(path: Path) -> Image.Image:
    """The image, upright, in RGB; raises DataError for what is none."""
    from PIL import Image, ImageOps

    from detrbench.data.reading import reason, refuse_file, refuse_size

    try:
        refuse_file(path)
        with Image.open(path) as image:
            refuse_size(image)
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError:
        raise DataError(f"{path}: no such image") from None
    except Exception as error:  # Pillow raises many kinds for broken files
        raise DataError(f"{path}: cannot be read as an image: {reason(error)}") from error


def sample_of(picture: Image.Image) -> Sample:
    """An image that nobody annotated, as a data set hands it out."""
    import numpy as np

    from detrbench.data import Sample, Target

    empty = Target(
        0, np.zeros(0, np.int64), np.zeros((0, 4), np.float32), np.zeros(0, np.bool_), np.zeros(0, np.float32)
    )
    return Sample(picture, empty, picture.height, picture.width)


def _own_names(weights: Path) -> dict[int, str] | None:
    """Label -> class name as weights of ours say it; None where they do not."""
    from detrbench.models import checkpoints

    if not weights.is_file():
        return None  # loading says so
    names = checkpoints.class_names(weights)
    return dict(enumerate(names)) if names is not None else None


def _class_names(settings: Mapping[str, Any]) -> dict[int, str]:
    """Label -> class name of the data that a scale's settings describe."""
    from detrbench.data import open_dataset
    from detrbench.data.samples import class_names
    from detrbench.suite.schema import Scale

    spec = Scale(**{k: v for k, v in settings.items() if k in Scale.model_fields}).data_spec
    return class_names(open_dataset(spec, "val"))


def _coco_names(num_classes: int | None) -> dict[int, str]:
    from detrbench.data.coco_names import CATEGORIES

    if num_classes == 80:
        return dict(enumerate(CATEGORIES.values()))
    return dict(CATEGORIES) if num_classes == 91 else {}
