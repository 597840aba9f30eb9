"""Quantities as they are read from cells, and what two of them differ by.

Imports no torch. A difference is taken in pairs wherever both sides share something: the same images (AP), the same
rounds of the same processes (latency). Where they do not, the difference says so and its interval is as wide as it is.

What depends on trained weights depends on the seed of their training too. Over several seeds a figure is their mean, a
difference is one of methods, and its interval holds for other seeds and other images. Of one training each, or of
weights that were given as files, it is a difference of these very weights, and its interval holds for other images.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from detrbench import statistics
from detrbench.compare.quantities import Quantity
from detrbench.environment import hardware
from detrbench.measures import COMMON, MEASURES
from detrbench.results.folder import CellFolder
from detrbench.results.store import CellResult
from detrbench.statistics import Evidence

if TYPE_CHECKING:
    from detrbench.measure.ap_images import ImageMatches


@dataclass(frozen=True)
class Training:
    """A figure of one training, or of weights that were given.

    `se` is its standard error over images; `images` the file of what each of them contributed, valid for the record
    with the key `key`. `weights` is equal for figures of the very same weights, and empty where these are not known.
    """

    value: float
    se: float
    key: str = ""
    images: Path | None = None
    weights: str = ""


@dataclass(frozen=True)
class Reading:
    """A figure of one cell, with all that a comparison needs to know of where it comes from.

    `rounds` are times by process and round, NaN where left out. `trainings` are behind a figure that depends on
    weights, one for each seed; `given` says that its weights came as a file. `notes` are what the timing itself said of
    its machine, and which trainings have no figure.
    """

    quantity: Quantity
    evidence: Evidence
    protocol: str
    version: int
    hardware: str
    processes: int = 1
    session: str = ""
    rounds: tuple[tuple[float, ...], ...] = ()
    trainings: tuple[Training, ...] = ()
    given: bool = False
    notes: tuple[str, ...] = ()

    @property
    def spread(self) -> float | None:
        """The standard deviation between seeds; None of a single training."""
        return statistics.spread([each.value for each in self.trainings])


def read(cell: CellResult, quantity: Quantity, protocol: str | None = None) -> Reading | None:
    """A figure of a cell; without a protocol `common`, else the first there is. None where it was not measured."""
    found = cell.records.get(quantity.measure, {})
    protocol = protocol or (COMMON if COMMON in found else next(iter(sorted(found)), ""))
    record = found.get(protocol)
    value = _value(record, quantity) if record is not None else None
    if record is None or value is None:
        return None
    envelope = cell.envelopes.get(quantity.measure, {})
    where = hardware(envelope.get("environment") or {}, envelope.get("device"))
    version = int(record.get("protocol_version") or 0)
    if quantity.measure == "latency":
        return _latency(quantity, record, protocol, version, where)
    if not MEASURES[quantity.measure].each_seed:
        return Reading(quantity, Evidence(value), protocol, version, where)
    of_each = {each.id: _training(each, quantity, protocol, version) for each in cell.trainings}
    trainings = tuple(each for each in of_each.values() if each is not None)
    evidence = over_seeds([Evidence(each.value, each.se) for each in trainings])
    notes = [f"{each.id}: {without(each, quantity.measure)}" for each in cell.further if of_each[each.id] is None]
    return Reading(
        quantity, evidence, protocol, version, where, trainings=trainings, given=cell.given, notes=tuple(notes)
    )


def without(cell: CellResult, measure: str) -> str:
    """Why a cell has no figure of a measure under a protocol that another training of it has."""
    state, why = cell.state(measure)
    return f"{state.replace('_', ' ')}: {why}" if why else "under another protocol"


def _training(cell: CellResult, quantity: Quantity, protocol: str, version: int) -> Training | None:
    """The figure of one training; None where it has none under that version of the protocol."""
    record = cell.records.get(quantity.measure, {}).get(protocol)
    if record is None or _value(record, quantity) is None or int(record.get("protocol_version") or 0) != version:
        return None
    evidence = from_interval(at(record, quantity.path))
    images = CellFolder(cell.folder).images if quantity.measure == "accuracy" else None
    key = str(cell.envelopes.get(quantity.measure, {}).get("key", ""))
    weights = f"{cell.folder.parent}/{cell.cell.get('weights_of') or cell.id}"
    return Training(evidence.value, evidence.se, key, images, weights)


def over_seeds(found: Sequence[Evidence]) -> Evidence:
    """The mean of a figure over trainings, each with its standard error over the same images.

    How errors over the same images go together is not known here: as if they were the same in every training, at worst.
    """
    if len(found) == 1:
        return found[0]
    return statistics.of_seeds([each.value for each in found], sum(each.se for each in found) / len(found))


def _value(record: Mapping[str, Any], quantity: Quantity) -> float | None:
    value = at(record, quantity.path)
    value = value.get("value") if isinstance(value, Mapping) else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def at(record: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """What lies inside a record; None where nothing does."""
    value: Any = record
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def from_interval(estimate: Mapping[str, Any]) -> Evidence:
    """The normal distribution with the 95 % interval of a record's estimate."""
    low, high = estimate.get("low"), estimate.get("high")
    if low is None or high is None:
        return Evidence(float(estimate["value"]), math.inf)
    return Evidence(float(estimate["value"]), (high - low) / (2 * 1.959964))


def _latency(quantity: Quantity, record: Mapping[str, Any], protocol: str, version: int, where: str) -> Reading | None:
    processes = int(record.get("processes") or 1)
    left_out, samples = set(record.get("marked") or []), record.get("samples_ms") or []
    clean = [math.nan if i in left_out else float(value) for i, value in enumerate(samples)]
    size = len(clean) // processes
    rounds = tuple(tuple(clean[i * size : (i + 1) * size]) for i in range(processes)) if size else ()
    evidence = (
        statistics.of_processes(rounds) if rounds else Evidence(_value(record, quantity) or 0.0, math.inf, 1, True)
    )
    # The figure shown is the record's; with one process its median and ours are the same.
    session, notes = str(record.get("session") or ""), (*_noise(record), *(record.get("warnings") or ()))
    return Reading(quantity, evidence, protocol, version, where, processes, session, rounds, notes=notes)


def _noise(record: Mapping[str, Any]) -> tuple[str, ...]:
    """What a detector took against itself in the same rounds: the noise of the machine."""
    ratio = record.get("self_ratio") or {}
    if ratio.get("low") is None or ratio.get("high") is None:
        return ()
    return (f"against itself {ratio['value']:.3f} x [{ratio['low']:.3f}, {ratio['high']:.3f}]",)


FALSE_VERDICTS = 0.05  # share of the families of comparisons between equals that may find a difference
About = Literal["", "method", "weights", "training"]


@dataclass(frozen=True)
class Difference:
    """What a reading differs from another by: a ratio where the figure is relative, else a difference.

    `notes` say what the comparison rests on where that is not the best there could be; where `comparable` is not set,
    no verdict may be drawn from it. `about` says what differs: `method`, over several seeds of each; `weights`, the
    given files; `training`, where a side was trained only once and another seed might say otherwise; empty where seeds
    do not matter.
    """

    evidence: Evidence
    notes: tuple[str, ...] = ()
    comparable: bool = True
    about: About = ""

    def detectable(self, comparisons: int = 1) -> float | None:
        """The smallest difference, or ratio, that this could have found among so many; None where nobody knows."""
        known = self.comparable and self.about != "training" and math.isfinite(self.evidence.se)
        return self.evidence.detectable(1 - FALSE_VERDICTS / comparisons) if known and not self.evidence.exact else None


def difference(new: Reading, old: Reading) -> Difference:
    """New against old."""
    found = _difference(new, old)
    if not (new.trainings and old.trainings):
        return found
    seeds = [len(each.trainings) for each in (new, old)]
    counted = (f"{seeds[0]} against {seeds[1]} seeds",) if max(seeds) > 1 else ()
    notes = dict.fromkeys((*found.notes, *counted, *old.notes, *new.notes))
    return dataclasses.replace(found, notes=tuple(notes), about=_about(new, old))


def _about(new: Reading, old: Reading) -> About:
    if _same(new, old, "key"):
        return "weights"  # the very figures of the other side
    if any(len(each.trainings) == 1 and not each.given for each in (new, old)):
        return "training"
    return "weights" if new.given or old.given else "method"


def _difference(new: Reading, old: Reading) -> Difference:
    quantity = new.quantity
    if (new.protocol, new.version) != (old.protocol, old.version):
        rules = f"{old.protocol} version {old.version} and {new.protocol} version {new.version}"
        return Difference(_plain(new, old), (f"not the same protocol: {rules}",), comparable=False)
    if quantity.exact:
        return Difference(_plain(new, old))
    if quantity.measure in ("latency", "memory") and new.hardware != old.hardware:
        return Difference(_plain(new, old), (f"not the same hardware: {old.hardware} and {new.hardware}",), False)
    if quantity.measure == "latency":
        return _latency_ratio(new, old)
    if quantity.measure == "accuracy":
        return _ap_difference(new, old)
    return Difference(_plain(new, old))


def _plain(new: Reading, old: Reading) -> Evidence:
    """As if the two had nothing in common."""
    if not new.quantity.relative:
        return new.evidence.minus(old.evidence)
    return new.evidence.over(old.evidence) if old.evidence.value else Evidence(math.inf, math.inf, log=True)


def _latency_ratio(new: Reading, old: Reading) -> Difference:
    same_rounds = new.session == old.session != "" and list(map(len, new.rounds)) == list(map(len, old.rounds))
    if same_rounds:
        notes = () if new.processes > 1 else ("timed in one process: variation between processes is unknown",)
        return Difference(statistics.paired_ratio(new.rounds, old.rounds), notes)
    plain = _plain(new, old)
    if min(new.processes, old.processes) > 1:
        return Difference(plain, ("not timed together, so unpaired",))
    note = "not timed together, and variation between processes is unknown"
    return Difference(Evidence(plain.value, math.inf, 1, log=True), (note,))


def _ap_difference(new: Reading, old: Reading) -> Difference:
    from detrbench.measure import ap_images

    found = [[_images_of(one, each.protocol) for one in each.trainings] for each in (new, old)]
    mine, theirs = ([one for one in each if one is not None] for each in found)
    if [len(mine), len(theirs)] != [len(each) for each in found]:
        note = "unpaired: per-image results are missing; run accuracy again with --fresh"
        return Difference(_plain(new, old), (note,))
    if len({one.images for one in (*mine, *theirs)}) > 1:
        return Difference(_plain(new, old), ("unpaired: not the same images",))
    of: Literal["ap", "ap50"] = "ap50" if new.quantity.name == "ap50" else "ap"
    if len(mine) == len(theirs) == 1:
        return Difference(ap_images.paired_difference(mine[0], theirs[0], of))
    drawn = ap_images.mean_replicates(mine, of) - ap_images.mean_replicates(theirs, of)
    return Difference(_between_seeds(new, old).minus(statistics.from_replicates(0.0, drawn)))


def _images_of(one: Training, protocol: str) -> ImageMatches | None:
    from detrbench.measure import ap_images

    found = ap_images.read(one.images, protocol) if one.images else None
    return found if found and found.key == one.key else None


def _between_seeds(new: Reading, old: Reading) -> Evidence:
    """The difference on the images as they are, with what is known of other seeds.

    Where both sides run the same weights, as a row with `weights_of` does, each training is held against itself.
    """
    if _same(new, old, "key") or _same(new, old, "weights"):
        return _over([mine.value - theirs.value for mine, theirs in zip(new.trainings, old.trainings, strict=True)])
    return _over([each.value for each in new.trainings]).minus(_over([each.value for each in old.trainings]))


def _same(new: Reading, old: Reading, what: Literal["key", "weights"]) -> bool:
    """Whether the trainings of both sides are the same in order, by their records' keys or by their weights."""
    mine, theirs = ([getattr(each, what) for each in side.trainings] for side in (new, old))
    return mine == theirs and all(mine)


def _over(values: list[float]) -> Evidence:
    """A mean over seeds on fixed images; one value says nothing of other seeds and is taken as it is."""
    return statistics.of_seeds(values, 0.0) if len(values) > 1 else Evidence(values[0])
