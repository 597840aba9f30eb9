"""What a training begins with: files of weights with their hashes, and why it cannot begin. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from detrbench.errors import UsageError
from detrbench.models.backbones import imagenet
from detrbench.models.spec import DetectorSpec
from detrbench.suite.cells import Cell
from detrbench.training.recipe import IMAGENET, RANDOM
from detrbench.weights import catalogue, named, store
from detrbench.weights.named import Weights


@dataclass(frozen=True)
class Start:
    """What is loaded before the first step: the backbone's weights (`init`) or a whole detector's (`init_from`).

    `remark` is what a reader should know of a training that begins with neither.
    """

    backbone: Weights | None = None
    detector: Weights | None = None
    remark: str | None = None


def of(cell: Cell) -> Start:
    """What the training of a cell begins with.

    Raises:
        UsageError: weights are not here or not the published ones, or a part of the backbone would stay random.
    """
    recipe = cell.settings.recipe
    if recipe.init_from is not None:
        return Start(detector=named.find(recipe.init_from, "init_from"))
    spec = cell.detector
    if recipe.init == IMAGENET:
        return Start(backbone=_imagenet(spec))
    if recipe.init != RANDOM:
        return Start(backbone=named.find(recipe.init, "init", "imagenet, none or a file"))
    _refuse_frozen(spec, recipe.lr_backbone)
    known = imagenet.published(spec.parts["backbone"], spec.options)
    return Start(remark="the backbone starts from random values (init: none)" if known else None)


def find(names: tuple[str, ...]) -> Weights | None:
    """The first of some weights of the catalogue that is here.

    Raises:
        CheckpointError: the file is not the one that was published, or not the one that it was at its first use.
    """
    return next((found for name in names if (found := named.here_of(catalogue.get(name)))), None)


def how_to_get(name: str) -> str:
    """What to do where weights of the catalogue are not here."""
    entry = catalogue.get(name)
    digits = f", sha256 {entry.sha256[:8]}..." if entry.sha256 else ""
    return f"put {entry.file} ({entry.url}{digits}) at {store.folder_of(entry) / str(entry.file)}"


def _imagenet(spec: DetectorSpec) -> Weights:
    known = imagenet.published(spec.parts["backbone"], spec.options)
    if not known:
        window = spec.options.get("window_size")
        which = spec.parts["backbone"] + (f" with window_size={window}" if window else "")
        raise UsageError(f"init: imagenet: nobody published ImageNet weights of backbone {which}; say init: none")
    found = find(known)
    if found is None:
        raise UsageError(f"{how_to_get(known[0])} (detrbench weights fetch {known[0]}), or say init: none")
    return found


def _refuse_frozen(spec: DetectorSpec, lr_backbone: float) -> None:
    """What is not trained must not begin at random."""
    frozen = imagenet.frozen(spec.options)
    if frozen is not None:
        option, stages = frozen
        raise UsageError(
            f"init: none would keep random values in what {option}={stages} freezes of the {spec.parts['backbone']}; "
            f"say init: imagenet, or train all of it: model.{option}=0"
        )
    if lr_backbone == 0:
        raise UsageError("init: none with lr_backbone: 0 would keep a random backbone; give lr_backbone a rate above 0")
