"""What a run would do: cells x measures, each with a cache key, a state and an estimate. Imports no torch.

A key hashes everything that the figure depends on and nothing else. A record in the results folder whose key is still
the same is done; any other is taken again.
"""

from __future__ import annotations

import functools
import itertools
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from detrbench.data.sizes import photograph_size
from detrbench.data.spec import Split
from detrbench.errors import DetrbenchError
from detrbench.external import sources
from detrbench.measure import protocols
from detrbench.measures import COMMON, MEASURES, NEED_WEIGHTS, PHASES, TIMED
from detrbench.results.folder import CellFolder
from detrbench.results.store import ResultsStore
from detrbench.run.keys import (
    Conditions,
    complexity_key,
    count_keys,
    detections_key,
    folder_name,
    record_key,
    training_key,
)
from detrbench.run.reuse import KnownRecords
from detrbench.run.start import Start
from detrbench.suite.cells import Cell
from detrbench.weights import catalogue, named
from detrbench.weights.named import Weights

UNKNOWN = "not built yet"  # why a cell of a model that nobody knows is not measured
NO_DATA = "no data: give the folder of a data set with --data PATH"
OF_OURS = "external: only the detectors of detrbench tell it"
# Measures that follow PyTorch see nothing of what ONNX Runtime does.
NOT_OF_ONNX = {
    "complexity": "ONNX Runtime runs it, where nothing counts: the detector that was exported has a row for that",
    "memory": "ONNX Runtime runs it, whose memory nothing follows",
}
NO_WEIGHTS = "random weights: name those of a detector from elsewhere as its checkpoint"
UNTRAINED = "random weights without data: --measure latency,memory times them all the same"

ItemState = Literal["todo", "reused", "done", "not_measured"]


@dataclass(frozen=True)
class WorkItem:
    """One measure of one cell. `seconds` is a coarse estimate, None where nothing is known.

    `reused` is due, but an equal cell of some suite has all of its records; `known` names protocols of complexity whose
    record is at hand, and which the step leaves out; `anew` asks to count what the user's caches know, too.
    `detections` is the key of what accuracy's forward detects.

    `why` says why a measure cannot be taken, where its record comes from, or what to know of what is due.
    `weights` names what the detector is loaded with: `checkpoint`, `trained`, or `random` (for what does not depend on
    their values). `start` is what training begins with, `skip` the steps that it passes over. `official` says which
    released weights that checkpoint is: name and sha256. The cell is then as these were trained, and its folder that of
    the row. `batch_size` images of one size are evaluated together. `identity` is a hash of the weights. `tensorboard`:
    training writes for that too. `time_limit`: seconds of the run's option; 0: no limit.
    """

    cell: Cell
    folder: CellFolder
    measure: str
    key: str
    state: ItemState
    why: str | None
    weights: str
    seconds: float | None
    known: tuple[str, ...] = ()
    anew: bool = False
    start: Start = field(default_factory=Start)
    skip: tuple[int, ...] = ()
    official: str | None = None
    detections: str = ""
    batch_size: int = 1
    identity: str = ""
    tensorboard: bool = False
    time_limit: float = 0.0

    @property
    def patience(self) -> float | None:
        """Seconds that another interpreter has for each answer; None: as many as it takes."""
        return self.time_limit or None

    @property
    def name(self) -> str:
        """Which it is of a suite's items at one scale, whatever is run again: `<cell's folder>/<measure>`."""
        return f"{self.folder.path.name}/{self.measure}"

    @property
    def trained_in(self) -> CellFolder:
        """Where the weights are, if they are trained: with the cell, or with the one whose weights it takes."""
        source = self.cell.weights_of
        return CellFolder(self.folder.path.parent / folder_name(source)) if source else self.folder


def work_items(
    cells: Iterable[Cell],
    measures: Iterable[str],
    store: ResultsStore,
    conditions: Conditions,
    fresh: bool = False,
    train: bool = False,
    asked: bool = True,
    processes: int | None = None,
) -> list[WorkItem]:
    """The work, in the order in which it is best done: all complexity, then cell by cell, then all memory and latency.

    Training is added for cells whose accuracy, DAM correlation or queries need trained weights. What takes days is
    planned only where `train` asks for it; otherwise the plan says what it would cost. Without data, random weights are
    timed only if somebody `asked` for these very measures, or for nothing that needs weights: whoever did not wants AP
    beside the latency. `processes` repeat a timing in place of the protocol's number, which tells how long it takes.
    """
    wanted = set(measures)
    estimate = _Estimates(store, conditions, processes)
    found = [_of_cell(cell, wanted, store, conditions, fresh, train, asked, estimate) for cell in cells]
    items = list(itertools.chain(*found))
    if not fresh:
        known = KnownRecords(store.root)
        items = [_if_known(item, known) for item in items]
    # Stable: within a phase, cells stay in the suite's order.
    return sorted(items, key=lambda item: PHASES.index(MEASURES[item.measure].phase))


def _of_cell(
    cell: Cell,
    wanted: set[str],
    store: ResultsStore,
    now: Conditions,
    fresh: bool,
    train: bool,
    asked: bool,
    estimate: _Estimates,
) -> list[WorkItem]:
    folder = store.folder(cell.suite, cell.scale, folder_name(cell))
    missing = _cell_lacks(cell, now)
    weights = _Weights(cell, now, folder, wanted, train)
    if cell.first is not None and (missing or weights.official):
        return []  # released weights are one training, and what cannot be built is said of the first
    items = []
    for measure in MEASURES:
        if cell.first is not None and not MEASURES[measure].each_seed:
            continue
        if measure not in wanted and not (measure == "training" and weights.to_train):
            continue
        why = missing or weights.lacking(measure)
        if not why and not asked and weights.needed and MEASURES[measure].timed and weights.why == NO_DATA:
            why = UNTRAINED
        key = "" if why else _key(weights.cell, measure, now, weights)
        state: ItemState = "not_measured" if why else "todo"
        if not why and not fresh and folder.has(measure, key):
            state = "done"
        unasked = measure == "training" and weights.unasked
        seconds = estimate(cell, measure, unasked) if state == "todo" or unasked else None
        if measure == "training" and state == "todo":
            why = weights.start.remark
        found = WorkItem(weights.cell, folder, measure, key, state, why, weights.kind, seconds)
        detections = detections_key(weights.cell, now, weights.identity) if key and measure == "accuracy" else ""
        identity = "" if why else weights.identity
        official, start = weights.official, weights.start
        items.append(replace(found, official=official, start=start, detections=detections, identity=identity))
    return items


def timed_on(item: WorkItem, environment: Mapping[str, Any], device: str) -> WorkItem:
    """An item as the machine plans it that takes it: the keys of timings depend on the machine, no other does."""
    if item.measure not in TIMED or not item.key:
        return item
    now = Conditions(_ask_no_data, _ask_no_data, environment, device)
    return replace(item, key=record_key(item.cell, item.measure, now, item.identity))


def was_timed(item: WorkItem, device: str) -> bool:
    """Whether a machine that had such a device has timed it, whichever that was."""
    envelope = item.folder.read_envelope(item.measure)
    if envelope is None or envelope.get("device") != device:
        return False
    return item.folder.has(item.measure, timed_on(item, envelope["environment"], device).key)


def _ask_no_data(cell: Cell, split: Split) -> Any:
    raise AssertionError("timings depend on no data")


def touches(group: Iterable[WorkItem], counts: bool = True) -> set[Any]:
    """What a group of items needs or leaves: folders, weights, records. Of two that touch one thing, the later waits.

    Args:
        group: items that are done under one lock.
        counts: whether it matters that no detector is counted twice.
    """
    found: set[Any] = set()
    for item in group:
        found |= {item.folder.path, item.trained_in.path}
        if item.state == "todo" and (counts or item.measure != "complexity"):
            keys = count_keys(item.cell).values() if item.measure == "complexity" else [item.key]
            found |= {(item.measure, key) for key in keys}
    return found


def _if_known(item: WorkItem, known: KnownRecords) -> WorkItem:
    """The item as `reused` where equal cells have all of its records."""
    if item.state != "todo":
        return item
    if item.measure == "complexity":
        counts = known.counts(item.cell)
        if set(counts) != set(item.cell.protocols_of("complexity")):
            return item
        return replace(item, state="reused", why=f"counted for {counts[COMMON].origin}", seconds=0.0)
    equal = known.equal(item.measure, item.key)
    return replace(item, state="reused", why=f"taken for {equal.origin}", seconds=0.0) if equal else item


def _cell_lacks(cell: Cell, now: Conditions) -> str | None:
    if cell.published_only:
        return "published figures only"
    if cell.model is None:
        return "an external detector: score its predictions with detrbench evaluate"
    if cell.external:
        return sources.lacking(cell.external, cell.options, cell.python)
    if cell.model not in now.built:
        return UNKNOWN
    return None


class _Weights:
    """Where a cell's weights come from, and why there are none.

    `cell` is the one that was given, or where released weights are at hand the detector that they were trained as.
    """

    def __init__(self, cell: Cell, now: Conditions, folder: CellFolder, wanted: set[str], train: bool) -> None:
        self.cell, self.now, self.train = cell, now, train
        self.needed = bool(wanted & NEED_WEIGHTS)
        self.trained_key: str | None = None
        self.file: Weights | None = None
        self.unasked = False  # training would give them, but nobody asked for it
        self.why: str | None = None
        self.lost: str | None = None  # why the cell's own checkpoint cannot be had
        self.start = Start()
        if not _cell_lacks(cell, now):
            self._take_given()
            self._find(folder, wanted)

    def _take_given(self) -> None:
        """The weights that the cell names; what it leaves open of the detector is as they were trained."""
        if self.cell.checkpoint is None:
            return
        try:
            found = named.find(self.cell.checkpoint, "checkpoint")
            options = found.options(str(self.cell.model), self.cell.options) if self.cell.is_ours else self.cell.options
            self._load(found, options)
        except DetrbenchError as error:
            self.lost = error.message

    def _load(self, file: Weights, options: dict[str, Any]) -> None:
        self.file, self.cell = file, replace(self.cell, checkpoint=str(file.path), options=options)

    def _find(self, folder: CellFolder, wanted: set[str]) -> None:
        if self.cell.settings.data == "coco" and self.cell.settings.path is None:
            self.why = NO_DATA
            return
        try:
            if self.needed:
                self.now.fingerprint(self.cell, "val")
            if self.cell.checkpoint is None and not self.cell.is_ours:
                self.why = NO_WEIGHTS
            elif not self._take_official() and self.cell.checkpoint is None:
                self._find_trained(folder, wanted)
        except DetrbenchError as error:
            self.why = error.message

    def _take_official(self) -> bool:
        """Whether released weights that are on this machine stand in for the training."""
        name = (self.cell.weights_of or self.cell).official
        if name is None or self.cell.checkpoint is not None:
            return False
        entry = catalogue.get(name)
        found = named.here_of(entry)
        if found is None:
            return False
        options = {**entry.options, **self.cell.options}
        if self.cell.weights_of is None:  # a row that runs another row's weights is meant to differ from their training
            options = catalogue.options_for(entry, str(self.cell.model), self.cell.options)
        self._load(found, options)
        return True

    def _find_trained(self, folder: CellFolder, wanted: set[str]) -> None:
        source = self.cell.weights_of or self.cell
        trained_in = CellFolder(folder.path.parent / folder_name(source))
        there = trained_in.record("training").exists()
        if not (self.needed or "training" in wanted or there):
            return
        key = None
        if there or self.train or not source.takes_days:
            self.start, key = self.now.start(source), training_key(source, self.now)
        done = key is not None and trained_in.has("training", key)
        if source.takes_days and not self.train and not done:
            self.unasked, self.why = source is self.cell, _unasked(source)
        elif self.needed or "training" in wanted or done:
            self.trained_key = key

    @property
    def to_train(self) -> bool:
        own = self.cell.checkpoint is None and self.cell.weights_of is None
        return self.needed and own and (self.trained_key is not None or self.unasked)

    @property
    def official(self) -> str | None:
        return self.file.official if self.file else None

    @property
    def kind(self) -> str:
        if self.cell.checkpoint is not None:
            return "checkpoint"
        return "trained" if self.trained_key else "random"

    @functools.cached_property
    def identity(self) -> str:
        """A hash of the weights, or of all that training them depends on."""
        if self.file is not None:
            return self.file.sha256
        return self.trained_key or "random"

    def lacking(self, measure: str) -> str | None:
        """Why a measure cannot be taken."""
        if self.cell.external and not MEASURES[measure].external:
            return OF_OURS
        if self.cell.external and self.cell.external.kind == sources.ONNX and measure in NOT_OF_ONNX:
            return NOT_OF_ONNX[measure]
        if measure == "complexity":
            return None
        if measure in (*NEED_WEIGHTS, "training") and self.why and not self.lost:
            return self.why
        return self.lost


def _unasked(cell: Cell) -> str:
    """Why a cell has no weights, and how it gets some."""
    if cell.official is None:
        return "there are no official weights; --train trains it"
    return f"official weights are missing ({named.how_to_get(catalogue.get(cell.official))}), or use --train"


def _key(cell: Cell, measure: str, now: Conditions, weights: _Weights) -> str:
    if measure == "complexity":
        return complexity_key(cell)
    if measure == "training":
        return training_key(cell, now)
    return record_key(cell, measure, now, weights.identity)


# What one forward of a ResNet-50 detector at 800x1066 costs, and how much of it a second buys.
_GFLOPS, _PIXELS = 175.0, 800 * 1066
_GFLOPS_PER_SECOND = {"cpu": 25.0, "cuda": 5000.0}  # of one core; of a GPU


def sized(protocol: Any, cell: Cell) -> Any:
    """The protocol at the size at which a cell is evaluated: photographs are 4:3, generated images quick."""
    settings = cell.settings
    if settings.data != "coco":
        return protocol.at(*settings.eval_size)
    if settings.papers_size:
        return protocol
    return protocol.of_photographs(*photograph_size(*settings.eval_size))


def _forwards(cell: Cell, protocol: str, processes: int | None) -> int:
    """How often a cell's detector is run to be timed: in each round, and once to be tried."""
    rule = sized(protocols.get("latency", protocol), cell)
    return 1 + rule.rounds * (processes or rule.processes)


class _Estimates:
    """Seconds: the median of earlier records of a measure at this scale, else from the size of the work."""

    def __init__(self, store: ResultsStore, now: Conditions, processes: int | None) -> None:
        self.store, self.now, self.processes = store, now, processes
        self.earlier = functools.cache(self._earlier)

    def __call__(self, cell: Cell, measure: str, lenient: bool = False) -> float | None:
        """The estimate; where `lenient`, None for a cost that needs data which are not here."""
        found = self.earlier(cell.suite, cell.scale, measure)
        try:
            return statistics.median(found) if found else self._from_size(cell, measure)
        except DetrbenchError:
            if lenient:
                return None
            raise

    def _earlier(self, suite: str, scale: str, measure: str) -> list[float]:
        heads = [head for path in self.store.folders(suite, scale) if (head := CellFolder(path).read_head(measure))]
        mine = [head["seconds"] for head in heads if head.get("device") == self.now.device and "seconds" in head]
        return [seconds for seconds in mine if seconds is not None]

    def _from_size(self, cell: Cell, measure: str) -> float:
        if measure == "complexity":
            return 5.0 * len(cell.protocols_of("complexity"))
        forward = self._forward(cell)
        if measure == "training":
            return 3 * forward * self.now.images(cell, "train") * cell.settings.recipe.epochs
        if measure in ("memory", "pictures"):
            return 5 + 4 * forward
        if measure == "latency":
            return 2 + forward * sum(_forwards(cell, name, self.processes) for name in cell.protocols_of("latency"))
        return 5 + forward * self.now.images(cell, "val")

    def _forward(self, cell: Cell) -> float:
        tiny = 0.15 if cell.options.get("backbone") == "tiny" else 1.0
        size = cell.settings.eval_size
        height, width = photograph_size(*size) if cell.settings.data == "coco" else size
        cores = self.now.environment.get("cores") or 1
        cuda = self.now.device.startswith("cuda")
        speed = _GFLOPS_PER_SECOND["cuda"] if cuda else _GFLOPS_PER_SECOND["cpu"] * cores
        return float(tiny * _GFLOPS * height * width / _PIXELS / speed)
