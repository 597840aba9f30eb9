"""Executes a plan. A cell that fails is recorded and the rest goes on; whatever was done stays done.

Order: the complexity of all cells, then each cell's training, accuracy, DAM correlation and queries, then the memory of
each, then the latency of all together, so that its rounds can alternate between them. Who does it is an executor.
"""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import detrbench.environment as environments
from detrbench import models
from detrbench.data import contents
from detrbench.data.spec import Split
from detrbench.errors import NothingSelected
from detrbench.files import at_home
from detrbench.measures import TIMED
from detrbench.results.store import ResultsStore
from detrbench.run import plan, work
from detrbench.run.executors import Executor
from detrbench.run.executors.local import Local
from detrbench.run.keys import Conditions, folder_name
from detrbench.run.plan import WorkItem
from detrbench.run.work import Listener, Outcome, RunOptions
from detrbench.suite.cells import Cell
from detrbench.suite.loading import LoadedSuite
from detrbench.suite.selection import compile_expression
from detrbench.training import board


@dataclass(frozen=True)
class PreparedRun:
    """A suite with its plan: what `--dry-run` prints and `execute` does."""

    loaded: LoadedSuite
    scale: str
    cells: list[Cell]
    items: list[WorkItem]
    store: ResultsStore
    environment: Mapping[str, Any]
    options: RunOptions


def prepare(loaded: LoadedSuite, options: RunOptions, warn: Callable[[str], None] | None = None) -> PreparedRun:
    """Expands the suite, selects cells and plans the work; writes nothing.

    Raises:
        EnvironmentLacking: what is asked for needs a package that is not installed.
        NothingSelected: `-k` or `--measure` leaves nothing.
        DataError: `--data` names no data set.
        UsageError, SuiteError: anything in the suite or in `--set` that is wrong.
    """
    if options.tensorboard:
        board.require()
    scale = loaded.suite.pick_scale(options.scale, options.data is not None)
    cells = loaded.cells(scale, _overrides(options))
    selected = select(cells, options.expression)
    store = ResultsStore(options.results, warn)
    environment = environments.capture()
    if options.data is not None:
        if options.verify_data:
            contents.forget(options.data)
        for cell in selected[:1]:
            work.dataset_of(cell.settings.data_spec, "val")  # a wrong --data is a mistake, not a missing figure
    conditions = Conditions(_fingerprint, _images, environment, options.device, frozenset(models.names()))
    measures = options.measures if options.measures is not None else tuple(loaded.suite.measure)
    asked_for = options.measures is not None
    items = plan.work_items(
        selected, measures, store, conditions, options.fresh, options.train, asked_for, options.processes
    )
    if not items:
        raise NothingSelected(f"{loaded.suite.name}: nothing to measure", hint=f"measures: {', '.join(measures)}")
    for item in items:
        if item.measure == "training" and item.state == "todo":
            item.cell.settings.recipe.check_shared(options.gpus)
    asked = {name: getattr(options, name) for name in ("batch_size", "skip", "tensorboard", "time_limit")}
    items = [dataclasses.replace(item, **asked) for item in items]
    return PreparedRun(loaded, scale, cells, items, store, environment, options)


def select(cells: Iterable[Cell], expression: str | None) -> list[Cell]:
    """The cells whose id fits a `-k` expression."""
    cells = list(cells)
    if expression is None:
        return cells
    matches = compile_expression(expression)
    found = [cell for cell in cells if matches(cell.id)]
    if not found:
        raise NothingSelected(f"-k {expression!r} fits no cell", hint=f"ids: {', '.join(c.id for c in cells)}")
    return found


def _overrides(options: RunOptions) -> dict[str, Any]:
    overrides = dict(options.overrides)
    if options.data is not None:
        overrides |= {"data": "coco", "path": str(at_home(options.data).resolve())}
    if options.limit is not None:
        overrides["limit"] = options.limit
    return overrides


def _fingerprint(cell: Cell, split: Split) -> str:
    return work.dataset_of(cell.settings.data_spec, split).fingerprint


def _images(cell: Cell, split: Split) -> int:
    return len(work.dataset_of(cell.settings.data_spec, split))


def execute(run: PreparedRun, listener: Listener, executor: Executor | None = None) -> list[Outcome]:
    """Does the work of one suite; see `execute_all`."""
    return execute_all([run], listener, executor)


def execute_all(runs: Sequence[PreparedRun], listener: Listener, executor: Executor | None = None) -> list[Outcome]:
    """Does the work and returns what became of each item, in the plans' order.

    Args:
        runs: of one command, with their plans.
        listener: is told how it goes.
        executor: who does it; None: this process.

    Raises:
        Unwritable: the results folder cannot be written.
        KeyboardInterrupt: after noting what was interrupted; everything done before is kept.
    """
    for run in runs:
        _record_suite(run)
        if run.options.fresh:
            _forget(run.items)
    items = [item for run in runs for item in run.items]
    listener.begin(items)
    groups = [group for run in runs for group in _groups(run.items)]
    outcomes = (executor or Local()).do(groups, runs[0].options, listener)
    place = {id(item): number for number, item in enumerate(items)}
    return sorted(outcomes, key=lambda outcome: place[id(outcome.item)])


def _groups(items: Sequence[WorkItem]) -> Iterator[list[WorkItem]]:
    """Items that are done under one lock: those of one cell in one phase, and all latencies."""

    def together(item: WorkItem) -> Any:
        return "latency" if item.measure == "latency" else (item.folder.path, item.measure in TIMED)

    for _, group in itertools.groupby(items, together):
        yield list(group)


def _forget(items: Sequence[WorkItem]) -> None:
    """Removes what `--fresh` is going to take again, at once: a killed `--fresh` run then goes on as any other."""
    for item in items:
        with item.folder.lock() as held:
            if held and item.state == "todo":
                item.folder.forget(item.measure)
                if item.measure == "training":
                    shutil.rmtree(item.folder.checkpoint, ignore_errors=True)


def _record_suite(run: PreparedRun) -> None:
    """Writes suite.yaml and the cell.yaml of every row, so that a row that was not run is still shown."""
    suite = run.loaded.suite
    run.store.write_suite(suite.name, run.scale, suite.model_dump(mode="json", exclude_unset=True))
    selected = {item.cell.id for item in run.items}
    known = run.store.ids(suite.name, run.scale) if len(selected) < len(run.cells) else set()
    for cell in run.cells:
        if cell.id in selected or not (cell.first or cell.id in known):
            run.store.folder(suite.name, run.scale, folder_name(cell)).write_cell(cell.describe())
    run.store.choose(suite.name, run.scale, {cell.id: folder_name(cell) for cell in run.cells if cell.id in selected})
