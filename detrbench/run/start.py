"""What a training begins with: files of weights with their hashes, and why it cannot begin. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from detrbench.errors import UsageError
from detrbench.files import sha256_once
from detrbench.models.backbones import imagenet
from detrbench.models.spec import DetectorSpec
from detrbench.suite.cells import Cell
from detrbench.training.recipe import IMAGENET, RANDOM
from detrbench.weights import catalogue, store

OWN = "a file of the user's"


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights; `source` says where it is published."""

    path: Path
    sha256: str
    source: str


@dataclass(frozen=True)
class Start:
    """What is loaded before the first step: the backbone's weights (`init`) or a whole detector's (`init_from`).

    `remark` is what a reader should know of a training that begins with neither.
    """

    backbone: WeightsFile | None = None
    detector: WeightsFile | None = None
    remark: str | None = None


def of(cell: Cell) -> Start:
    """What the training of a cell begins with.

    Raises:
        UsageError: weights are not here or not the published ones, or a part of the backbone would stay random.
    """
    recipe = cell.settings.recipe
    if recipe.init_from is not None:
        return Start(detector=_detector(recipe.init_from))
    spec = cell.detector
    if recipe.init == IMAGENET:
        return Start(backbone=_imagenet(spec))
    if recipe.init != RANDOM:
        return Start(backbone=_own("init", Path(recipe.init)))
    _refuse_frozen(spec, recipe.lr_backbone)
    known = imagenet.published(spec.parts["backbone"], spec.options)
    return Start(remark="the backbone starts from random values (init: none)" if known else None)


def find(names: tuple[str, ...]) -> WeightsFile | None:
    """The first of some weights of the catalogue that is here.

    Raises:
        CheckpointError: the file is not the one that was published, or not the one that it was at its first use.
    """
    for name in names:
        entry = catalogue.get(name)
        held = store.held(entry)
        if held is not None:
            return WeightsFile(held.path, held.sha256, str(entry.url or entry.by_hand))
    return None


def how_to_get(name: str) -> str:
    """What to do where weights of the catalogue are not here."""
    entry = catalogue.get(name)
    digits = f", sha256 {entry.sha256[:8]}..." if entry.sha256 else ""
    return f"put {entry.file} ({entry.url}{digits}) at {store.folder_of(entry) / str(entry.file)}"


def _imagenet(spec: DetectorSpec) -> WeightsFile:
    known = imagenet.published(spec.parts["backbone"], spec.options)
    if not known:
        window = spec.options.get("window_size")
        which = spec.parts["backbone"] + (f" with window_size={window}" if window else "")
        raise UsageError(f"init: imagenet: nobody published ImageNet weights of backbone {which}; say init: none")
    found = find(known)
    if found is None:
        raise UsageError(f"{how_to_get(known[0])} (detrbench weights fetch {known[0]}), or say init: none")
    return found


def _detector(given: str) -> WeightsFile:
    if given not in catalogue.entries():
        return _own("init_from", Path(given))
    found = find((given,))
    if found is None:
        raise UsageError(f"init_from: {given} is not here (detrbench weights fetch {given})")
    return found


def _own(key: str, path: Path) -> WeightsFile:
    if not path.is_file():
        allowed = "imagenet, none or a file" if key == "init" else "a file"
        raise UsageError(f"{key}: expected {allowed}, got {str(path)!r}, which is not there")
    return WeightsFile(path, sha256_once(path), OWN)


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
