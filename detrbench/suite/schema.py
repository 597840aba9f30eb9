"""What a suite's YAML may say: one pydantic model a mapping. Imports no torch."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from detrbench.data.spec import DataSpec
from detrbench.errors import unknown_name
from detrbench.measures import CHOSEN
from detrbench.training.recipe import Recipe
from detrbench.words import LONGEST_NAME

PAPER = "paper"  # the scale that is a paper's own setting
ChosenMeasure = Literal[CHOSEN]  # type: ignore[valid-type]  # a literal of every name, so that a mistake lists them


class Strict(BaseModel):
    """No unknown keys, no conversions: `"3"` is not a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _keys_of(record: type, rename: Mapping[str, str], *without: str) -> dict[str, Any]:
    """The fields of a dataclass as pydantic fields, so that a new setting there is a new key here."""
    hints = typing.get_type_hints(record)
    return {
        rename.get(f.name, f.name): (str | None if hints[f.name] == Path | None else hints[f.name], f.default)
        for f in dataclasses.fields(record)
        if f.name not in without
    }


# `seed` is the recipe's; a data set's own seed is `data_seed`.
_DATA_NAMES = {"seed": "data_seed"}
_COCO_KEYS = ("path", "labels", "keep_empty", "limit")  # those that say something of a COCO folder
_DataKeys = create_model("_DataKeys", __base__=Strict, **_keys_of(DataSpec, _DATA_NAMES, "kind"))
_RecipeKeys = create_model("_RecipeKeys", __base__=Strict, **_keys_of(Recipe, {}))


class Scale(_DataKeys, _RecipeKeys):  # type: ignore[misc, valid-type]
    """Where a table can be run: which data (keys of DataSpec), how trained (keys of Recipe), at which size.

    `like` names a scale of suites/shared/scales.yaml whose keys hold where this one says nothing.
    `model` holds model options that this scale changes (a tiny backbone); `shortest` and `longest` are the sides to
    which images are resized for evaluation: 800 and 1333 if not given, or the size at which `shapes` are drawn.
    """

    like: str | None = None
    data: Literal["coco", "shapes"] = "coco"
    shortest: int | None = Field(default=None, gt=0)
    longest: int | None = Field(default=None, gt=0)
    model: dict[str, Any] = Field(default={})

    def merged(self, other: Scale) -> Scale:
        """This scale with the keys that `other` sets on top."""
        mine, theirs = self.model_dump(exclude_unset=True), other.model_dump(exclude_unset=True)
        model = {**mine.get("model", {}), **theirs.get("model", {})}
        return Scale(**{**mine, **theirs, **({"model": model} if model else {})})

    @property
    def eval_size(self) -> tuple[int, int]:
        """(shortest, longest) side of an evaluated image, in pixels."""
        shortest, longest = (800, 1333) if self.data == "coco" else (self.image_size, self.image_size)
        return self.shortest or shortest, self.longest or longest

    @property
    def recipe(self) -> Recipe:
        """How to train."""
        return Recipe(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Recipe)})

    @property
    def data_spec(self) -> DataSpec:
        """Which data; raises DataError for a value that no data set can have."""
        names = [f.name for f in dataclasses.fields(DataSpec) if f.name != "kind"]
        values = {name: getattr(self, _DATA_NAMES.get(name, name)) for name in names}
        return DataSpec(kind=self.data, **values | {"path": Path(self.path) if self.path else None})

    def resolved(self) -> dict[str, Any]:
        """Every setting that says something, defaults included: data, evaluated size, recipe."""
        names = _COCO_KEYS if self.data == "coco" else [name for name in _DataKeys.model_fields if name != "path"]
        data = {"data": self.data, **{name: getattr(self, name) for name in names}}
        return {**data, "eval_size": list(self.eval_size), **dataclasses.asdict(self.recipe)}


class SharedScales(Strict):
    """suites/shared/scales.yaml."""

    scales: dict[str, Scale]


class SuiteVariant(Strict):
    """One row of a table, or with `matrix` one row for each combination of its values.

    `model: null` with `published_only: true` is a row of which only the published figures are shown.
    `protocols` names protocols recorded beside `common`, of any measure (`sparse_table1`, `paper_top100`); `scales`
    changes a scale for this variant only. `weights_of` names an earlier cell, with whose weights this one is measured
    instead of being trained. `official` names released weights (`sparse_detr/r50_rho0.3`): where they are on this
    machine, they are what is measured at the scale `paper`, with every option that they were trained with.
    """

    id: str = Field(min_length=1)
    model: str | None = None
    published_only: bool = False
    matrix: dict[str, list[Any]] = {}
    options: dict[str, Any] = {}
    row: dict[str, Any] | None = None
    note: str | None = None
    protocols: list[str] = []
    checkpoint: str | None = None
    weights_of: str | None = None
    official: str | None = None
    scales: dict[str, Scale] = {}


class Report(Strict):
    """Which tables and plots the report shows; empty lists mean its usual ones."""

    tables: list[str] = []
    plots: list[str] = []


class Suite(Strict):
    """A suite as written. `protocols` holds for every variant; `defaults` are model options of every variant."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=LONGEST_NAME)
    title: str
    description: str | None = None
    published: str | None = None
    protocols: list[str] = []
    defaults: dict[str, Any] = {}
    variants: list[SuiteVariant] = Field(min_length=1)
    scales: dict[str, Scale] = Field(min_length=1)
    default_scale: str | None = None
    measure: list[ChosenMeasure] = list(CHOSEN)
    report: Report = Report()
    budgets: dict[str, str] = {}

    def pick_scale(self, given: str | None, has_data: bool) -> str:
        """`given`; else `paper` where data is at hand and the suite has it; else the suite's default or first."""
        if given is not None:
            if given not in self.scales:
                raise unknown_name(f"scale of suite {self.name}", given, self.scales)
            return given
        if has_data and PAPER in self.scales:
            return PAPER
        return self.default_scale or next(iter(self.scales))
