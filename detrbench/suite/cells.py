"""The cells of a suite: its variants with their matrices filled in, at one scale, every option resolved.

Imports no torch. Each mistake is a SuiteError: `file:line:col: key: expected X, got Y`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import os
import string
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from detrbench import models, published, yaml12
from detrbench.errors import DetrbenchError, UsageError, unknown_name
from detrbench.external import sources as external
from detrbench.files import at_home
from detrbench.measure import protocols
from detrbench.measures import CHOSEN, COMMON, EVALUATED, MEASURES
from detrbench.models.spec import DetectorSpec
from detrbench.suite import sources
from detrbench.suite.schema import EXTERNAL, PAPER, Scale, Suite, SuiteVariant
from detrbench.suite.validation import explain
from detrbench.weights import catalogue, named
from detrbench.words import problem_of_name


@dataclass(frozen=True)
class Cell:
    """One variant at one scale, resolved: what a results folder holds one of.

    `options` build the detector that is trained, timed and evaluated; `complexity_options` the one whose operations
    are counted, at paper scale wherever the suite has that scale. `protocols` are recorded beside `common`.
    `weights_of` is the cell whose training gives the weights, where it is not this one; `official` the released weights
    that may stand in for that training, at the papers' own scale. `first` is the cell of which this one is another
    training, with another seed: `sparse-0.3#1` of `sparse-0.3`. A detector from elsewhere has a `source` and options of
    its own, and is counted as it is evaluated; `python` is the interpreter that runs it, if that is another one.
    `published` is the table of `row`, where that is not the suite's.
    """

    id: str
    suite: str
    scale: str
    index: int
    model: str | None
    options: dict[str, Any]
    complexity_options: dict[str, Any]
    settings: Scale
    row: dict[str, Any] | None = None
    note: str | None = None
    protocols: tuple[str, ...] = ()
    checkpoint: str | None = None
    published_only: bool = False
    weights_of: Cell | None = None
    official: str | None = None
    first: Cell | None = None
    source: str | None = None
    python: str | None = None
    published: str | None = None
    origins: sources.Origins = sources.NOBODY

    @property
    def recipe(self) -> dict[str, tuple[Any, str]]:
        """Every setting and, as `model.<name>`, every option of the detector: its value and where that comes from."""
        return sources.recipe(self.model, self.options, self.settings, self.origins)

    @property
    def is_ours(self) -> bool:
        """Whether it is a choice of parts, which is trained here."""
        return self.model not in (None, EXTERNAL)

    @functools.cached_property
    def external(self) -> external.Source | None:
        """Where a detector from elsewhere comes from. Raises UsageError for a source that is none."""
        return external.parse(self.source) if self.source is not None else None

    @functools.cached_property
    def detector(self) -> DetectorSpec:
        """The one that is trained, timed and evaluated. Raises UsageError for options that it does not take."""
        return models.resolve(str(self.model), self.options)

    @functools.cached_property
    def counted(self) -> DetectorSpec:
        """The one whose operations are counted. Raises UsageError for options that it does not take."""
        return models.resolve(str(self.model), self.complexity_options)

    @property
    def takes_days(self) -> bool:
        """Whether training it is the papers' own: days on many GPUs, which nobody starts by mistake."""
        return self.scale == PAPER and self.settings.data == "coco"

    def protocols_of(self, measure: str) -> list[str]:
        """The protocols under which a measure is taken: `common` first."""
        known = protocols.of(measure)
        names = [COMMON, *(name for name in self.protocols if name in known)]
        if self.source is not None:
            return [name for name in names if MEASURES[measure].external and known[name].fits_external]
        return [*names, EVALUATED] if measure == "complexity" and self.evaluates_another else names

    @property
    def evaluates_another(self) -> bool:
        """Whether AP is measured of another detector, or on smaller images, than the paper's, whose cost is counted."""
        # At the papers' scale, released weights may set options of their own, which cost nothing.
        papers = self.scale == PAPER or self.options == self.complexity_options
        return self.is_ours and not (papers and self.settings.papers_size)

    def describe(self) -> dict[str, Any]:
        """cell.yaml."""
        left_out = ["settings", "origins", "first"]
        left_out += [name for name in ("source", "python", "published") if getattr(self, name) is None]
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in left_out}
        values |= {"protocols": list(self.protocols), "resolved": self.settings.resolved()}
        values["weights_of"] = self.weights_of.id if self.weights_of else None
        values |= {"seed_of": self.first.id} if self.first else {}
        values["recipe"] = {} if self.model is None else self.recipe
        return typing.cast("dict[str, Any]", json.loads(json.dumps(values, default=str)))


@dataclass(frozen=True)
class LoadedSuite:
    """A checked suite with the document it came from, which knows the line of each key."""

    suite: Suite
    document: yaml12.Document

    def cells(self, scale: str, overrides: Mapping[str, Any] | None = None) -> list[Cell]:
        """The suite's cells at one scale, in order; behind them all, those with a second seed, with a third, ...

        Args:
            scale: a key of `scales`.
            overrides: what `--set` gave: scale keys (`epochs`), and options for every detector that takes them.
        """
        changed, options = split_overrides(overrides or {})
        cells = list(_expand(self, scale, changed))
        cells = list(self._linked(_with_options(cells, options) if options else cells))
        cells = [*cells, *further_seeds(cells)]
        self._check_unique(cells)
        return cells

    def rows(self, scale: str, overrides: Mapping[str, Any] | None = None) -> list[Cell]:
        """As `cells`, without further seeds: one for each row of a table."""
        return [cell for cell in self.cells(scale, overrides) if cell.first is None]

    def _linked(self, cells: Iterable[Cell]) -> Iterator[Cell]:
        """The cells, each with the earlier cell whose weights it is measured with."""
        wanted = dict(_weights_wanted(self.suite))
        earlier: dict[str, Cell] = {}
        for cell in cells:
            if cell.id in wanted:
                position, source = wanted[cell.id]
                with located(self.document, ("variants", position, "weights_of")):
                    if source not in earlier:
                        raise unknown_name("earlier cell", source, earlier)
                cell = dataclasses.replace(cell, weights_of=earlier[source])
            elif cell.is_ours and cell.checkpoint is None:
                earlier[cell.id] = cell
            yield cell

    def check(self) -> None:
        """Finds what only shows when the suite is expanded: at every scale, options, rows, protocols; the sweep."""
        for scale in self.suite.scales:
            self._check_sweep(self.cells(scale))

    def _check_sweep(self, cells: Iterable[Cell]) -> None:
        """What rows run through is an option of one of the detectors, or a column of the published table."""
        sweep = self.suite.report.sweep
        if sweep is None:
            return
        known = set(published.load(self.suite.published).columns) if self.suite.published else set()
        for cell in cells:
            known |= set(_options_of(cell)) if cell.model in models.names() else set(cell.options)
        known |= {"keep_ratio"} if "keep_ratios" in known else set()  # the report takes the mean of a list
        if sweep not in known:
            with located(self.document, ("report", "sweep")):
                raise unknown_name("option or published column", sweep, known)

    def _check_unique(self, cells: Iterable[Cell]) -> None:
        seen: set[str] = set()
        for cell in cells:
            if cell.id in seen:
                hint = 'give each variant its own id; with a matrix, name its values: "sparse-{keep_ratio}"'
                raise self.document.error(("variants",), f"expected distinct ids, got {cell.id!r} twice", hint)
            seen.add(cell.id)


def check_options(cell: Cell) -> None:
    """Raises UsageError where a detector does not take its options, or comes from nowhere.

    Detectors that are not built yet pass.
    """
    _ = cell.external
    if cell.model in models.names():
        _ = cell.detector, cell.counted


def _expand(loaded: LoadedSuite, scale: str, changed: Scale) -> Iterator[Cell]:
    suite, index = loaded.suite, itertools.count()
    for i, variant in enumerate(suite.variants):
        for values in _combinations(variant.matrix):
            with located(loaded.document, ("variants", i)):
                settings = _settings(suite, variant, scale).beside(_folder(loaded.document)).merged(changed)
                settings.check()
                paper = _settings(suite, variant, PAPER) if PAPER in suite.scales else settings
                ours = variant.source is None  # defaults, and what a scale changes, are options of our detectors
                defaults, of_scale = (suite.defaults, settings.model) if ours else ({}, {})
                options = {**defaults, **values, **_fill(variant.options, values)}
                cell = Cell(
                    id=_checked_name(str(_fill(variant.id, values))),
                    suite=suite.name,
                    scale=scale,
                    index=next(index),
                    model=variant.model,
                    options={**options, **of_scale},
                    complexity_options={**options, **paper.model} if ours else options,
                    settings=settings,
                    row=_row(suite, variant, values),
                    note=variant.note,
                    protocols=_protocols(suite, variant),
                    checkpoint=_checkpoint(loaded.document, variant, values),
                    source=_fill(variant.source, values),
                    python=_python(loaded.document, variant, values),
                    published=variant.published,
                    published_only=variant.published_only,
                    official=_official(variant, values, {**options, **settings.model}) if scale == PAPER else None,
                    origins=_origins(loaded, i, scale, values, changed),
                )
                check_options(cell)
            yield cell


def _origins(
    loaded: LoadedSuite, position: int, scale: str, values: Mapping[str, Any], changed: Scale
) -> sources.Origins:
    """Who says what of a variant's cell: with these matrix values, at one scale, with keys that the command changed."""
    suite, variant, written = loaded.suite, loaded.suite.variants[position], loaded.document.value
    of_row = written["variants"][position].get("scales", {}).get(scale, {})
    own = variant.scales.get(scale, Scale())
    row = list(sources.layers_of(of_row, own, sources.ROW))
    below = list(sources.layers_of(written["scales"][scale], suite.scales[scale], sources.SUITE))
    # A row that builds on another shared scale has the options of that one, and none of its suite's.
    scales = row if own.like else [*row, *below]
    return sources.Origins(
        settings=((sources.SET, changed.model_dump(exclude_unset=True)), *row, *below),
        options=(
            *((who, said.get("model", {})) for who, said in scales),
            (sources.ROW, {**values, **variant.options}),
            (sources.SUITE, suite.defaults),
        ),
    )


def further_seeds(cells: list[Cell]) -> Iterator[Cell]:
    """The other trainings of each row that is trained, as many as its scale asks for, the second of each row first.

    What is measured with another row's weights is so with each of its trainings.
    """
    for number in range(1, max((cell.settings.seeds for cell in cells), default=1)):
        made: dict[str, Cell] = {}
        for cell in cells:
            source = cell.weights_of
            if source is None and cell.settings.seeds > number and cell.is_ours and cell.checkpoint is None:
                made[cell.id] = _another_seed(cell, number)
            elif source is not None and source.id in made:
                made[cell.id] = dataclasses.replace(_another_seed(cell, number), weights_of=made[source.id])
        yield from made.values()


def _another_seed(cell: Cell, number: int) -> Cell:
    settings = cell.settings.with_seed(number)
    said = ((sources.SEEDS, {"seed": settings.seed}), *cell.origins.settings)
    origins = dataclasses.replace(cell.origins, settings=said)
    name = _checked_name(f"{cell.id}#{number}")
    return dataclasses.replace(cell, id=name, first=cell, settings=settings, origins=origins)


def _weights_wanted(suite: Suite) -> Iterator[tuple[str, tuple[int, str]]]:
    """(cell id, (position of its variant, id of the cell whose weights it takes))."""
    for i, variant in enumerate(suite.variants):
        if variant.weights_of is not None:
            for values in _combinations(variant.matrix):
                yield str(_fill(variant.id, values)), (i, str(_fill(variant.weights_of, values)))


@contextlib.contextmanager
def located(document: yaml12.Document, key: yaml12.KeyPath) -> Iterator[None]:
    """Gives errors raised inside the position of a key, or of the key below it that the message begins with."""
    try:
        yield
    except DetrbenchError as error:
        if error.message.startswith(document.path):
            raise
        first, _, rest = error.message.partition(": ")
        if (*key, first) in document.marks:
            raise document.error((*key, first), rest, error.hint) from error
        raise document.error(key, error.message, error.hint) from error


def _with_options(cells: list[Cell], chosen: Mapping[str, Any]) -> list[Cell]:
    """The cells with model options changed, each in those detectors that take it."""
    built = set(models.names())
    takes = {cell.id: set(_options_of(cell)) for cell in cells if cell.model in built}
    known = set().union(*takes.values())
    for name in chosen:
        if takes and name not in known:
            raise unknown_name("model option", name, known)
    changed = []
    for cell in cells:
        mine = {name: value for name, value in chosen.items() if cell.is_ours and name in takes.get(cell.id, chosen)}
        cell = dataclasses.replace(
            cell,
            options=cell.options | mine,
            complexity_options=cell.complexity_options | mine,
            origins=dataclasses.replace(cell.origins, options=((sources.SET, mine), *cell.origins.options)),
        )
        check_options(cell)
        changed.append(cell)
    return changed


def _options_of(cell: Cell) -> Iterator[str]:
    yield from cell.detector.options
    yield from cell.detector.parts


def _settings(suite: Suite, variant: SuiteVariant, scale: str) -> Scale:
    own = variant.scales.get(scale)
    return suite.scales[scale].merged(own) if own else suite.scales[scale]


def _combinations(matrix: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*matrix.values()):
        yield dict(zip(matrix, values, strict=True))


def _fill(template: Any, values: Mapping[str, Any]) -> Any:
    """Fills `{name}` from the matrix; a string that is nothing but `{name}` becomes the value itself."""
    if isinstance(template, dict):
        return {key: _fill(item, values) for key, item in template.items()}
    if isinstance(template, list):
        return [_fill(item, values) for item in template]
    if not isinstance(template, str) or "{" not in template:
        return template
    try:
        parsed = [(name, how) for _, name, *how in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise UsageError(f"expected a template such as 'sparse-{{keep_ratio}}', got {template!r}") from error
    fields = [name for name, _ in parsed]
    if any(spec or conversion for _, (spec, conversion) in parsed):  # a width of two billion is one of these
        raise UsageError(f"expected plain names in braces, such as {{keep_ratio}}, got {template!r}")
    for name in fields:
        if name not in values:
            known = ", ".join(values) or "none, for there is no matrix"
            raise UsageError(f"{template!r} names {name!r}", hint=f"keys of this variant's matrix: {known}")
    if len(fields) == 1 and template == f"{{{fields[0]}}}":
        return values[fields[0]]
    return template.format_map(values)


def _checked_name(name: str) -> str:
    problem = problem_of_name(name)
    if problem:
        raise UsageError(f"id: {problem}", hint="ids name folders and rows: letters, digits, '-', '.', '_'")
    return name


def _row(suite: Suite, variant: SuiteVariant, values: Mapping[str, Any]) -> dict[str, Any] | None:
    """The selector of the published row: as written, and matrix values for columns that it does not name."""
    if variant.row is None:
        return None
    reference = variant.published or suite.published
    if reference is None:
        raise UsageError("row: expected the suite to say `published: paper/table`, got none")
    table = published.load(reference)
    selector = {key: value for key, value in values.items() if key in table.columns}
    selector |= _fill(variant.row, values)
    table.select(selector)
    return selector


def _checkpoint(document: yaml12.Document, variant: SuiteVariant, values: Mapping[str, Any]) -> str | None:
    """The weights; a relative path is relative to the suite's file."""
    if variant.checkpoint is None:
        source = _fill(variant.source, values)
        return external.parse(source).weights if source is not None else None
    return named.beside(_folder(document), str(_fill(variant.checkpoint, values)))


def _python(document: yaml12.Document, variant: SuiteVariant, values: Mapping[str, Any]) -> str | None:
    """Another interpreter. A link stays one: that of an environment leads to what knows nothing of it."""
    if variant.python is None:
        return None
    return os.path.abspath(_folder(document) / at_home(str(_fill(variant.python, values))))


def _folder(document: yaml12.Document) -> Path:
    """What relative paths in a suite are relative to."""
    return Path(document.path).resolve().parent


def _official(variant: SuiteVariant, values: Mapping[str, Any], options: Mapping[str, Any]) -> str | None:
    """The released weights that a row names, which have to be of the row's detector."""
    if variant.official is None:
        return None
    name = str(_fill(variant.official, values))
    try:
        catalogue.options_for(catalogue.get(name), str(variant.model), options)
    except UsageError as error:
        raise UsageError(f"official: {error.message}", error.hint) from error
    return name


def _protocols(suite: Suite, variant: SuiteVariant) -> tuple[str, ...]:
    known = {name for measure in CHOSEN for name in protocols.of(measure)}
    wanted = dict.fromkeys([*suite.protocols, *variant.protocols])
    for name in wanted:
        if name not in known:
            raise unknown_name("protocol", name, known)
    return tuple(name for name in wanted if name != COMMON)


def split_overrides(overrides: Mapping[str, Any]) -> tuple[Scale, dict[str, Any]]:
    """What `--set` gave, as keys of a scale and as options of models; raises UsageError for a key that is neither.

    A name that both could be is the scale's; `model.NAME` is the models'.
    """
    settings = {name for name in Scale.model_fields if name not in ("model", "like")}
    own = models.override_names()
    keys: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for key, value in overrides.items():
        if key.startswith("model."):
            options[key.removeprefix("model.")] = value
        elif key in settings:
            keys[key] = value
        elif key in own:
            options[key] = value
        else:
            near = unknown_name("key", key, settings | own, "detrbench show SUITE --yaml")
            raise UsageError(f"--set {key}: unknown key", hint=near.hint)
    try:
        return Scale.model_validate(keys).beside(Path.cwd()), options
    except ValidationError as error:
        raise explain(error, yaml12.Document(keys, "--set", {}), Scale) from None
