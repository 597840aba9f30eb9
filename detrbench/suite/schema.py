"""What a suite's YAML may say: one pydantic model a mapping. Imports no torch."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from detrbench.data.sizes import LONGEST, SHORTEST, TRAIN_SCALES, in_proportion
from detrbench.data.spec import DataSpec
from detrbench.errors import UsageError, unknown_name
from detrbench.measures import CHOSEN
from detrbench.training.recipe import IMAGENET, RANDOM, Recipe
from detrbench.weights import named
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
        rename.get(f.name, f.name): (str | None if hints[f.name] == Path | None else hints[f.name], _default(f))
        for f in dataclasses.fields(record)
        if f.name not in without
    }


def _default(of: dataclasses.Field[Any]) -> Any:
    return of.default if of.default_factory is dataclasses.MISSING else Field(default_factory=of.default_factory)


# `seed` is the recipe's; a data set's own seed is `data_seed`.
_DATA_NAMES = {"seed": "data_seed"}
_COCO_KEYS = ("path", "labels", "keep_empty", "limit")  # those that say something of a folder
_DataKeys = create_model("_DataKeys", __base__=Strict, **_keys_of(DataSpec, _DATA_NAMES, "kind"))
_RecipeKeys = create_model("_RecipeKeys", __base__=Strict, **_keys_of(Recipe, {}))

Seeds = Annotated[int, Field(ge=1, le=100)]
# Pixels. In a smaller image the coarsest level has nothing left; a larger one fits into no memory.
Side = Annotated[int, Field(ge=32, le=16384)]


class Scale(_DataKeys, _RecipeKeys):  # type: ignore[misc, valid-type]
    """Where a table can be run: which data (keys of DataSpec), how trained (keys of Recipe), at which size.

    Attributes:
        like: a scale of suites/shared/scales.yaml, whose keys hold where this one says nothing.
        data: `coco` (a folder of annotated images) or `shapes` (generated images).
        shortest: pixels of the short side of an evaluated image; 800 if not given, or the size of `shapes`.
        longest: pixels that the long side has at most; 1333 if not given, or the size of `shapes`.
        train_scales: short sides of a training image to choose from, likewise up to `longest`. If not given: DETR's
            (480 to 800) in proportion to `shortest`; `shapes`, and stretched images, are trained as they are evaluated.
        stretch: images become squares of `shortest` pixels, in training of one of `train_scales`, whatever their shape.
        distort: training images are distorted, zoomed out and cropped as SSD's and RT-DETR's are.
        crop: half of the training images go through a random window first. If not given: true for `coco`.
        seeds: trainings of each row, which differ in nothing but `seed`: that one, the next, ... AP is their mean, and
            verdicts are about the method instead of one training of it. Rows with given weights have one.
        model: model options that this scale changes (a tiny backbone). A row whose scale names another shared one has
            the options of that one, and none of its suite's.
    """

    like: str | None = None
    data: Literal["coco", "shapes"] = "coco"
    shortest: Side | None = None
    longest: Side | None = None
    train_scales: list[Side] | None = Field(default=None, min_length=1)
    stretch: bool = False
    distort: bool = False
    crop: bool | None = None
    seeds: Seeds = 1
    model: dict[str, Any] = Field(default={})

    def merged(self, other: Scale) -> Scale:
        """This scale with the keys that `other` sets on top."""
        mine, theirs = self.model_dump(exclude_unset=True), other.model_dump(exclude_unset=True)
        model = {**({} if other.like else mine.get("model", {})), **theirs.get("model", {})}
        without = {key: value for key, value in {**mine, **theirs}.items() if key != "model"}
        return Scale(**without, **({"model": model} if model else {}))

    def beside(self, folder: Path) -> Scale:
        """This scale with files of weights that it names by a relative path found from `folder`."""
        asked = {
            "init": self.init not in (IMAGENET, RANDOM),
            "init_from": self.init_from is not None,
        }
        found = {key: named.beside(folder, getattr(self, key)) for key, given in asked.items() if given}
        return self.merged(Scale(**found)) if found else self

    @property
    def eval_size(self) -> tuple[int, int]:
        """(shortest, longest) side of an evaluated image, in pixels."""
        shortest, longest = (SHORTEST, LONGEST) if self.data == "coco" else (self.image_size, self.image_size)
        return self.shortest or shortest, self.longest or longest

    @property
    def papers_size(self) -> bool:
        """Whether images are evaluated as large as in the papers."""
        return self.eval_size == (SHORTEST, LONGEST)

    @property
    def sides_in_training(self) -> list[int]:
        """Short sides of a training image to choose from, in pixels."""
        if self.train_scales is not None:
            return self.train_scales
        shortest, _ = self.eval_size
        varied = self.data == "coco" and not self.stretch
        return list(in_proportion(TRAIN_SCALES, shortest)) if varied else [shortest]

    @property
    def crops(self) -> bool:
        """Whether half of the training images go through a random window."""
        return self.data == "coco" if self.crop is None else self.crop

    def check(self) -> None:
        """Raises UsageError for values that are out of bounds or do not fit each other, and for data that cannot be."""
        _ = self.data_spec, self.recipe, self.with_seed(self.seeds - 1).recipe
        shortest, longest = self.eval_size
        if shortest > longest:
            raise UsageError(f"shortest: expected at most longest, which is {longest}, got {shortest}")
        if max(self.sides_in_training) > longest:
            found = max(self.sides_in_training)
            raise UsageError(f"train_scales: expected at most longest, which is {longest}, got {found}")
        if self.stretch and shortest != longest:
            raise UsageError(f"stretch: expected shortest and longest to be one side, got {shortest} and {longest}")

    def with_seed(self, number: int) -> Scale:
        """The scale of one of the trainings, counted from 0."""
        return self.merged(Scale(seed=self.seed + number)) if number else self

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
        """Every setting that says something, defaults included: data, sizes, recipe."""
        names = _COCO_KEYS if self.data == "coco" else [name for name in _DataKeys.model_fields if name != "path"]
        data = {"data": self.data, **{name: getattr(self, name) for name in names}}
        sizes = {"eval_size": list(self.eval_size), "train_scales": self.sides_in_training, "crop": self.crops}
        sizes |= {name: True for name in ("stretch", "distort") if getattr(self, name)}
        return {**data, **sizes, **dataclasses.asdict(self.recipe)}


class SharedScales(Strict):
    """What suites/shared/scales.yaml says.

    Attributes:
        scales: scales by name, for `like`.
    """

    scales: dict[str, Scale]


EXTERNAL = "external"  # the model of a row with a `source`; and the suite of predictions that came as files


class SuiteVariant(Strict):
    """One row of a table, or with `matrix` one row for each combination of its values.

    Attributes:
        id: name of the row, unique in the suite; `{option}` in it takes the value of an option of the matrix.
        model: a detector, as `detrbench list models` names it, or `external`, one from elsewhere, with its `source`.
            `null` with `published_only: true` is a row of which only the published figures are shown; in the suite
            `external` it is a detector whose predictions `detrbench evaluate` has scored.
        source: where a detector from elsewhere comes from: `hf:ORGANISATION/REPOSITORY[@REVISION]`, `hf:TYPE` (a model
            type of transformers at its default configuration), `torchvision:NAME`, `factory:PACKAGE.MODULE:FUNCTION`
            or `onnx:FILE`, what `detrbench export` wrote. It is measured, never trained.
        python: the interpreter of another environment that runs a detector from elsewhere (`/envs/x/bin/python`), with
            its own PyTorch and without detrbench; found from the suite's folder.
        published_only: show what the paper prints; run nothing.
        matrix: options with several values each; there is one row for each combination.
        options: options of the model, parts among them (`encoder: sparse`), on top of the suite's `defaults`. Of a
            detector from elsewhere, which has no defaults: what changes its configuration, or its builder's arguments.
        published: the published table that this row answers to, where that is not the suite's.
        row: columns with values that pick one row of the published table: `{model: Sparse DETR, keep_ratio: 0.3}`.
            Matrix options that are columns of the table are added.
        note: a sentence that the report shows below the table.
        protocols: protocols recorded beside `common`, of any measure (`sparse_table1`, `paper_top100`).
        checkpoint: weights with which the row is measured, not trained: a name of the catalogue, `hf:...`, or a file,
            found from the suite's folder. Options that are left open are as they were trained. A detector from
            elsewhere has those of its repository, or random ones.
        weights_of: an earlier row, with whose weights this one is measured, not trained.
        official: released weights (`sparse_detr/r50_rho0.3`): where they are on this machine, they are measured at
            the scale `paper`, with every option that they were trained with.
        scales: keys of a scale that differ for this row.
    """

    id: str = Field(min_length=1)
    model: str | None = None
    source: str | None = None
    python: str | None = None
    published_only: bool = False
    matrix: dict[str, list[Any]] = {}
    options: dict[str, Any] = {}
    published: str | None = None
    row: dict[str, Any] | None = None
    note: str | None = None
    protocols: list[str] = []
    checkpoint: str | None = None
    weights_of: str | None = None
    official: str | None = None
    scales: dict[str, Scale] = {}


class Report(Strict):
    """What the report shows of a suite; empty lists mean its usual tables and plots.

    Attributes:
        tables: beside the main one: `accuracy`, `per_class`, `gflops_by_part`, `latency_by_part`, `latencies`,
            `spread`, `queries_by_epoch`, `training`.
        plots: `ap_gflops`, `gflops_by_part`, `ap_epochs`, `loss`, `ap_size`, `latency_ways`.
        sweep: the option, or the published column, that a detector's rows run through: they are joined by a line.
    """

    tables: list[str] = []
    plots: list[str] = []
    sweep: str | None = None


class Suite(Strict):
    """A suite as written: one table, whose rows can be run at each of its scales.

    Attributes:
        name: letters, digits, `-`, `.` and `_`; it names folders of results.
        title: what the report puts above the table.
        description: one or two sentences: what is compared.
        published: the published table that the rows answer to: `focus_detr/table6` in reports/published/.
        protocols: recorded beside `common` for every row.
        defaults: model options of every row.
        variants: the rows.
        scales: where the suite can be run, by name: `paper` is the paper's own setting.
        default_scale: the scale that is run if none is asked for and no data is given; else the first.
        measure: what is measured.
        report: what the report shows.
        budgets: bounds by name, held by `detrbench check`: `learns: ap >= 20`.
    """

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
