"""The steps of a run: each builds a cell's detector, gives it its weights, and calls one measure. Imports torch."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from detrbench import models
from detrbench.data.samples import Dataset
from detrbench.data.spec import DataSpec, Split
from detrbench.data.transforms import Eval, Stretch, Train, Transform, evaluated
from detrbench.environment import cores
from detrbench.errors import CheckpointError, UsageError
from detrbench.external import loading as external
from detrbench.files import write_atomic
from detrbench.measure import (
    accuracy,
    ap_images,
    complexity,
    counting,
    detections,
    latency,
    memory,
    pictures,
    protocols,
    queries,
    scoring,
    timing,
)
from detrbench.measure.inference import LOADERS, Progress
from detrbench.measure.inputs import Inputs
from detrbench.measure.protocols.accuracy import AccuracyProtocol
from detrbench.measure.protocols.complexity import ComplexityProtocol
from detrbench.measure.protocols.latency import LatencyProtocol
from detrbench.measure.timing import Timed
from detrbench.measures import COMMON, EVALUATED, MEASURES
from detrbench.pictures import scene
from detrbench.ranks import ALONE, Ranks
from detrbench.results.records import Accuracy, BeganWith, Complexity, Latency
from detrbench.run.parent import end_with_the_parent
from detrbench.run.plan import WorkItem, sized
from detrbench.run.start import Start
from detrbench.run.time_limit import expired
from detrbench.suite.cells import Cell
from detrbench.training import loop

OpenData = Callable[[DataSpec, Split], Dataset]
Report = Callable[..., None]  # (fraction done, or None where that is as before, text, milestone=False)


def take(item: WorkItem, device: str, open_data: OpenData, report: Report, ranks: Ranks = ALONE) -> dict[str, Any]:
    """One measure of one cell: records by protocol. What is `SHARED` is taken by all ranks at once."""
    if item.measure in SHARED:
        return SHARED[item.measure](item, device, open_data, report, ranks)
    own: dict[str, Callable[..., dict[str, Any]]] = {
        "complexity": _complexity,
        "pictures": _pictures,
        "memory": _memory,
    }
    return own.get(item.measure, _over_images)(item, device, open_data, report)


def load(item: WorkItem, device: str, open_data: OpenData) -> Any:
    """The cell's detector in eval mode, with the weights that the plan names."""
    if item.cell.external:
        return _elsewhere(item.cell, item.weights, item.patience).to(device)
    detector = _create(item, open_data if item.weights == "trained" else None)
    if item.weights == "checkpoint":
        models.load_checkpoint(detector, Path(str(item.cell.checkpoint)))
        if MEASURES[item.measure].needs_weights:
            _refuse_other_classes(detector, item, open_data)
    elif item.weights == "trained":
        item.trained_in.check_beside("training")
        models.load_checkpoint(detector, item.trained_in.weights)
    return detector.to(device).eval()


def _elsewhere(cell: Cell, weights: str = "random", patience: float | None = None) -> external.Adapted:
    """A detector from elsewhere, with random weights from the recipe's seed or those of its checkpoint."""
    assert cell.external is not None
    file = Path(str(cell.checkpoint)) if weights == "checkpoint" else None
    return external.load(cell.external, cell.options, cell.settings.recipe.seed, file, cell.python, patience)


def _refuse_other_classes(detector: Any, item: WorkItem, open_data: OpenData) -> None:
    """A class logit stands for a label of the data; where their numbers differ, it stands for another class."""
    logits = detector.spec.options["num_classes"]
    settings = item.cell.settings
    classes = open_data(settings.data_spec, "val").num_classes
    if logits != classes:
        raise UsageError(
            f"{item.cell.checkpoint}: has {logits} class logits, the data {classes} labels (labels: {settings.labels})",
            hint="labels: category_id goes with 91 logits of COCO, contiguous with 80; other classes need training",
        )


def _create(item: WorkItem, open_data: OpenData | None) -> Any:
    """Random weights from the recipe's seed; as many classes as the data has, unless the cell says how many."""
    options = dict(item.cell.options)
    if open_data is not None:
        options.setdefault("num_classes", open_data(item.cell.settings.data_spec, "train").num_classes)
    torch.manual_seed(item.cell.settings.recipe.seed)
    return models.create(item.cell.model, **options)


def _complexity(item: WorkItem, device: str, open_data: OpenData, report: Report) -> dict[str, Any]:
    """Counts under each protocol that is not known."""
    cell = item.cell
    names = [name for name in cell.protocols_of("complexity") if name not in item.known]
    records = {}
    for i, name in enumerate(names):
        report(i / len(names), name)
        records[name] = count(cell, name, item.anew, item.patience)
    return records


def count(cell: Cell, name: str, anew: bool = False, patience: float | None = None) -> Complexity:
    """The complexity of a cell under a protocol; `anew` even where the user's caches know it.

    `patience`: seconds that another interpreter has for each answer.
    """
    if cell.external:
        create = functools.partial(_elsewhere, cell, patience=patience)
        return complexity.measure(create, _counting(cell, name))
    options = cell.options if name == EVALUATED else cell.complexity_options
    return counting.count(str(cell.model), options, _counting(cell, name), anew=anew)


def _counting(cell: Cell, name: str) -> ComplexityProtocol:
    """The protocol of a count; that of the evaluated detector is on images of the scale's size."""
    rule: ComplexityProtocol = protocols.get("complexity", name)
    if name != EVALUATED:
        return rule
    shortest, longest = cell.settings.eval_size
    # Generated images are square, and so are stretched ones.
    photographs = cell.settings.data == "coco" and not cell.settings.stretch
    return rule.on(
        Inputs.first_100(shortest=shortest, longest=longest) if photographs else Inputs.single(shortest, shortest)
    )


def _training(item: WorkItem, device: str, open_data: OpenData, report: Report, ranks: Ranks) -> dict[str, Any]:
    """Trains, or goes on from the state in the folder; leaves checkpoint/model.safetensors."""
    settings = item.cell.settings
    train_set, val_set = (open_data(settings.data_spec, split) for split in ("train", "val"))

    def evaluate(detector: Any) -> dict[str, float | None]:
        rule, gathering = protocols.get("accuracy"), queries.Gathering(protocols.get("queries").thresholds)
        found = accuracy.collect(
            detector, val_set, [rule], device, transform=_eval(item), observe=gathering.add, ranks=ranks
        )
        gathering.share(ranks)
        stats = scoring.points(scoring.score(found[rule.name], val_set, rule).stats)
        return {"AP": stats["AP"], "AP50": stats["AP50"], **gathering.means()}

    def tell(at: loop.TrainProgress) -> None:
        done = at.step % (at.steps // at.epochs) == 0
        report(at.step / at.steps, f"epoch {at.epoch + 1}/{at.epochs}, loss {at.loss:.2f}", milestone=done)

    def notice(line: str) -> None:
        report(None, line, milestone=True)

    detector, folder = _create(item, open_data), item.folder.checkpoint
    logits = detector.spec.options["num_classes"]
    if logits < train_set.num_classes:
        raise UsageError(f"num_classes={logits}: the data has {train_set.num_classes} labels; leave num_classes out")
    began_with = _begin(detector, item.start)
    transform, recipe = _augmentation(item), settings.recipe
    history = loop.train(
        detector,
        train_set,
        transform,
        recipe,
        folder,
        evaluate,
        tell,
        device,
        notice,
        ranks,
        num_workers=_readers(settings.data),
        log=item.folder.training_log,
        skip=item.skip,
        board=item.folder.board if item.tensorboard else None,
    )
    return {"training": dataclasses.replace(history, began_with=began_with)}


def _readers(data: str) -> int:
    """Processes that read training images ahead. Generated ones are made once and kept: others would make them anew."""
    return 0 if data == "shapes" else min(LOADERS, cores())


def _begin(detector: Any, start: Start) -> list[BeganWith]:
    """Fills a detector with what its training begins with, and says what that was."""
    if start.remark:
        return [BeganWith("backbone", "random values")]
    given = [("detector", start.detector, models.start_from), ("backbone", start.backbone, models.load_backbone)]
    began_with = []
    for part, file, fill in given:
        if file is None:
            continue
        report = fill(detector, file.path)
        if report.sha256 != file.sha256:
            raise CheckpointError(f"{file.path}: has changed since the plan was made", "run it again")
        began_with.append(
            BeganWith(part, file.source, file.path.name, file.sha256, report.adapter, list(report.replaced))
        )
    return began_with


def _augmentation(item: WorkItem) -> Transform:
    """Flips; sizes and windows as the scale says."""
    settings = item.cell.settings
    sides, longest = settings.sides_in_training, settings.eval_size[1]
    return Train.up_to(sides, longest, settings.crops, settings.stretch, settings.distort)


def _eval(item: WorkItem) -> Eval | Stretch:
    return evaluated(*item.cell.settings.eval_size, item.cell.settings.stretch)


def _evaluated(item: WorkItem, detector: Any) -> Eval | Stretch:
    """What becomes of an evaluated image: what the scale says, or what a detector from elsewhere says itself."""
    return detector.external.native if isinstance(detector, external.Adapted) else _eval(item)


def _accuracy(item: WorkItem, device: str, open_data: OpenData, report: Report, ranks: Ranks) -> dict[str, Any]:
    """AP under all protocols from one forward; beside the record the detections, and what each image contributed.

    Where the very detections are kept already and hold all that the protocols score, they are scored without a forward.
    """
    dataset = open_data(item.cell.settings.data_spec, "val")
    rules = [protocols.get("accuracy", name) for name in item.cell.protocols_of("accuracy")]
    kept = _kept(item, rules) if ranks.rank == 0 else None
    if ranks.from_first(lambda: kept is not None):
        found = {rule.name: kept.best(rule.top) for rule in rules} if kept else {}
    else:
        detector, tell = load(item, device, open_data), _count(report, "detecting")
        # Nothing is padded, whatever the number: one image at a time, as protocols say, or those of one size together.
        transform = _evaluated(item, detector)
        found = accuracy.collect(detector, dataset, rules, device, item.batch_size, transform, tell, ranks=ranks)
    if ranks.rank:
        return {}
    if kept is None:
        detections.write(item.folder.detections, found[COMMON], item.detections)
    evaluations = {rule.name: scoring.evaluate(found[rule.name], dataset, rule) for rule in rules}
    matches = {name: each.matches for name, each in evaluations.items()}
    drawn = {name: each.drawn for name, each in evaluations.items()}
    write_atomic(item.folder.images, ap_images.pack(matches, dataset.image_ids, item.key, drawn))
    records = {name: each.record for name, each in evaluations.items()}
    return records if item.cell.is_ours else {rule.name: _elsewhere_scored(records[rule.name], rule) for rule in rules}


def _elsewhere_scored(record: Accuracy, rule: AccuracyProtocol) -> Accuracy:
    return dataclasses.replace(record, convention=rule.convention_elsewhere)


def _kept(item: WorkItem, rules: Sequence[AccuracyProtocol]) -> detections.Detections | None:
    """The very detections of an earlier forward, if they hold all that the protocols score."""
    return detections.read(item.folder.detections, item.detections) if all(rule.reads_kept for rule in rules) else None


def _count(report: Report, protocol: str, unit: str = "images") -> Callable[[int, int], None]:
    return lambda done, total: report(done / total, f"{protocol}: {done} of {total} {unit}")


def _over_images(item: WorkItem, device: str, open_data: OpenData, report: Report) -> dict[str, Any]:
    """A measure of the evaluation images that leaves nothing but its record: the `function` of its row."""
    module, _, name = str(MEASURES[item.measure].function).partition(":")
    measure = getattr(importlib.import_module(module), name)
    dataset = open_data(item.cell.settings.data_spec, "val")
    detector = load(item, device, open_data)
    records = {}
    for name in item.cell.protocols_of(item.measure):
        protocol, tell = protocols.get(item.measure, name), _count(report, name)
        records[name] = measure(detector, dataset, protocol, device, transform=_eval(item), progress=tell)
    return records


SHARED: Mapping[str, Callable[..., dict[str, Any]]] = {"training": _training, "accuracy": _accuracy}
"""What several processes take together."""


def _pictures(item: WorkItem, device: str, open_data: OpenData, report: Report) -> dict[str, Any]:
    """Which images were looked into, and beside the record what was seen in them."""
    dataset, rule = open_data(item.cell.settings.data_spec, "val"), protocols.get("pictures")
    tell = _count(report, rule.name)
    record, scenes = pictures.take(load(item, device, open_data), dataset, rule, device, _eval(item), tell)
    write_atomic(item.folder.traces, scene.pack(scenes, item.key))
    return {rule.name: record}


def _memory(item: WorkItem, device: str, open_data: OpenData, report: Report) -> dict[str, Any]:
    detector, trains = load(item, device, open_data), item.cell.is_ours
    return {
        name: memory.measure(detector, sized(protocols.get("memory", name), item.cell), training=trains)
        for name in item.cell.protocols_of("memory")
    }


def load_and_try(item: WorkItem, device: str, open_data: OpenData, limit: float, processes: int | None = None) -> Any:
    """A detector that is known to run at the size at which it will be timed, in so many processes.

    Raises:
        Expired: as often as it will be timed it would take longer than `limit` seconds (0: no limit).
    """
    detector = load(item, device, open_data)
    protocol = sized(protocols.get("latency"), item.cell)
    image = torch.zeros(1, 3, protocol.height, protocol.width, device=device)
    with torch.inference_mode():
        detector(image, None)  # the first prepares what all others find
        began = time.monotonic()
        detector(image, None)
    seconds, forwards = time.monotonic() - began, protocol.rounds * (processes or protocol.processes)
    if limit and seconds * forwards > limit:
        raise expired(limit, f"{forwards} forwards of {seconds:.1f} s take longer")
    return detector


def take_latency(
    ready: Mapping[str, tuple[WorkItem, Any]],
    device: str,
    report: Report,
    open_data: OpenData,
    processes: int | None = None,
) -> dict[str, dict[str, Any] | Exception]:
    """Latency of several cells, interleaved: {cell id: records by protocol, or what kept it from being timed}.

    Where one fails, the others are timed anew without it: what had been timed beside it had its rounds disturbed.

    Args:
        ready: cell id -> item and detector.
        device: that the detectors are on.
        report: is told of each round, and of a protocol that a cell had to be left out of.
        open_data: as for `load`, in the processes that repeat the timing.
        processes: in place of the protocol's number.
    """
    records: dict[str, Any] = {name: {} for name in ready}
    wanted = dict.fromkeys(name for item, _ in ready.values() for name in item.cell.protocols_of("latency"))
    for index, name in enumerate(wanted):
        share = functools.partial(_report_share, report, index, len(wanted))
        while True:
            group = {id_: pair for id_, pair in ready.items() if _is_due(records[id_], pair[0], name)}
            try:
                for id_, record in _timed(group, name, device, share, open_data, processes).items():
                    records[id_][name] = record
                break
            except timing.CannotBeTimed as failed:
                records[failed.name] = failed.error
    return records


def _report_share(
    report: Report, index: int, parts: int, fraction: float | None, text: str, milestone: bool = False
) -> None:
    """Reports a fraction of one of several equal parts as one of the whole."""
    report(None if fraction is None else (index + fraction) / parts, text, milestone)


def _is_due(records: Any, item: WorkItem, protocol: str) -> bool:
    return not isinstance(records, Exception) and protocol in item.cell.protocols_of("latency")


def _timed(
    group: Mapping[str, tuple[WorkItem, Any]],
    name: str,
    device: str,
    report: Report,
    open_data: OpenData,
    processes: int | None,
) -> dict[str, Latency]:
    """Latency of all of a group under one protocol."""
    if not group:
        return {}
    protocol = sized(protocols.get("latency", name), next(iter(group.values()))[0].cell)
    protocol = dataclasses.replace(protocol, processes=processes or protocol.processes)
    able = _able(group, protocol, report)
    if not able:
        return {}
    items = {id_: item for id_, (item, _) in able.items()}
    others = functools.partial(_time_in_a_fresh_process, items, device, open_data, protocol)
    detectors = {id_: detector for id_, (_, detector) in able.items()}
    return latency.measure(detectors, protocol, _count(report, name, "rounds"), others)


def _able(
    group: Mapping[str, tuple[WorkItem, Any]], protocol: LatencyProtocol, report: Report
) -> dict[str, tuple[WorkItem, Any]]:
    """Those that run in the protocol's mode: not every detector compiles, or fits into a CUDA graph."""
    able = {}
    for id_, pair in group.items():
        try:
            timing.try_mode(pair[1], protocol)
        except Exception as error:  # whatever it is, the other protocols and detectors can be timed
            report(None, f"{id_} left out of {protocol.name}: {str(error).splitlines()[0]}", milestone=True)
        else:
            able[id_] = pair
    return able


def _time_in_a_fresh_process(
    items: Mapping[str, WorkItem],
    device: str,
    open_data: OpenData,
    protocol: LatencyProtocol,
    number: int,
    progress: Progress,
) -> Timed:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    work = (theirs, items, device, open_data, protocol, number, torch.get_num_threads())
    process = context.Process(target=_tell_times, args=work)
    process.start()
    theirs.close()
    try:
        while isinstance(found := ours.recv(), _Round):
            progress(found.done, found.rounds)
    except EOFError:
        process.join()
        raise RuntimeError(f"the process that timed ended (exit code {process.exitcode})") from None
    finally:
        process.kill()  # it has said all, or nobody waits for it any more
        process.join()
    if isinstance(found, Exception):
        raise found
    timed: Timed = found
    return timed


@dataclasses.dataclass(frozen=True)
class _Round:
    """Word of a process that times: so many of its rounds are done."""

    done: int
    rounds: int


def _tell_times(pipe: Connection, *work: Any) -> None:
    """What a process that repeats a timing does: sends each round, then what it found, or why it found nothing."""
    end_with_the_parent()
    found: Timed | Exception
    with contextlib.suppress(KeyboardInterrupt, ConnectionError):  # then nobody waits for it
        try:
            found = _time_anew(lambda done, rounds: pipe.send(_Round(done, rounds)), *work)
        except Exception as error:
            found = error
        pipe.send(found)


def _time_anew(
    progress: Progress,
    items: Mapping[str, WorkItem],
    device: str,
    open_data: OpenData,
    protocol: LatencyProtocol,
    number: int,
    threads: int,
) -> Timed:
    torch.set_num_threads(threads)
    detectors = {}
    for id_, item in items.items():
        with timing.blaming(id_):
            detectors[id_] = load(item, device, open_data)
    return timing.time_together(detectors, protocol, progress, number)
