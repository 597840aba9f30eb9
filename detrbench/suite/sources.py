"""Where each value of a cell's recipe comes from: the command, the row, the suite, a shared scale, the zoo, a default.

    seeds         which of several trainings it is
    --set         given with the command
    row           the variant in the suite's file: its options, its matrix, its own keys for the scale
    suite         the suite's file, for all of its rows
    scale NAME    suites/shared/scales.yaml
    zoo           models/zoo: what the model is; with the code base where the row names one as its `source`
    default       nobody says it

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from detrbench import models
from detrbench.models.zoo import of_backbone
from detrbench.suite.schema import Scale

SEEDS, SET, ROW, SUITE, ZOO, DEFAULT = "seeds", "--set", "row", "suite", "zoo", "default"
MODEL = "model."  # begins the names of the detector's options, as `--set` has them

# What is worked out from several keys: the first of them that is said anywhere decides.
_DERIVED = {"eval_size": ("shortest", "longest", "image_size"), "train_scales": ("train_scales", "shortest")}

Layer = tuple[str, Mapping[str, Any]]  # who says it, and what


@dataclass(frozen=True)
class Origins:
    """Who says what of a cell, the last word first.

    Args:
        settings: of data, sizes and recipe.
        options: of the detector.
    """

    settings: tuple[Layer, ...]
    options: tuple[Layer, ...]

    def of_setting(self, name: str) -> str:
        """Where a setting comes from."""
        keys = _DERIVED.get(name, (name,))
        return next((who for key in keys if (who := _first(self.settings, key)) != DEFAULT), DEFAULT)

    def of_option(self, model: str, given: Mapping[str, Any], backbone: str) -> Callable[[str], str]:
        """Where an option of a model comes from, built with what is `given`, on that backbone."""
        variant = models.describe(model)
        source = given.get("source")
        zoo: list[Layer] = [(ZOO, of_backbone(variant.options, backbone))]
        if source is not None:
            zoo.insert(0, (f"{ZOO}, source {source}", of_backbone(variant.sources[source], backbone)))
        return lambda name: _first((*self.options, *zoo), name)


NOBODY = Origins((), ())


def layers_of(written: Mapping[str, Any], scale: Scale, who: str) -> Iterator[Layer]:
    """What a scale says as it is written, and what the shared scale says that it builds on.

    Args:
        written: the keys in the file.
        scale: the same with the shared scale's keys.
        who: wrote it.
    """
    yield who, written
    if scale.like is not None:
        yield f"scale {scale.like}", scale.model_dump(exclude_unset=True)


def _first(layers: tuple[Layer, ...], name: str) -> str:
    return next((who for who, said in layers if name in said), DEFAULT)


def recipe(
    model: str | None, options: Mapping[str, Any], settings: Scale, origins: Origins
) -> dict[str, tuple[Any, str]]:
    """Every setting and, as `model.<name>`, every option of the detector: its value and where that comes from.

    Args:
        model: the detector's name; its options are left out where it is none of this installation.
        options: what it is built with.
        settings: of data, sizes and recipe.
        origins: who says what.
    """
    found = {name: (value, origins.of_setting(name)) for name, value in settings.resolved().items()}
    if model in models.names():
        spec = models.resolve(str(model), options)
        origin = origins.of_option(str(model), options, spec.parts["backbone"])
        found |= {f"{MODEL}{name}": (value, origin(name)) for name, value in spec.options.items()}
    return found
