"""What a measurement leaves behind: frozen dataclasses that go to JSON and come back unchanged.

Each figure carries its unit, its protocol (a named rule with a version), n, and an interval where it is an estimate.
`measure/` makes these, `results/` keeps them, `report/`, `compare` and `check` read them; none of those readers
needs torch, so this module does not import it.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval. `low` and `high` are None where no interval can be given; `n` counts samples."""

    value: float
    unit: str
    n: int
    low: float | None = None
    high: float | None = None
    confidence: float = 0.95


@dataclass(frozen=True)
class CrossCheck:
    """What another counter says of the same forward, and which ops it passes over (op -> calls)."""

    gflops: float
    missed: dict[str, int]


@dataclass(frozen=True)
class Complexity:
    """Multiply-adds (1 MAC = 1 FLOP) of one forward at batch 1, under one protocol.

    `inputs` lists each distinct (height, width), its weight (number of images) and its GFLOPs; `gflops` and
    `gflops_by_part` are the weighted means. `uncounted` lists ops that the rule counts as zero (op -> calls).
    """

    protocol: str
    protocol_version: int
    convention: str
    gflops: float
    gflops_by_part: dict[str, float]
    params_millions: float
    params_millions_trainable: float
    params_millions_by_part: dict[str, float]
    inputs: list[dict[str, float]]
    uncounted: dict[str, int]
    cross_check: dict[str, CrossCheck] = field(default_factory=dict)


@dataclass(frozen=True)
class Accuracy:
    """COCO box AP. `stats` holds pycocotools' 12 figures in points (0-100) by their usual names:

    AP, AP50, AP75, APS, APM, APL, AR1, AR10, AR100, ARS, ARM, ARL. `per_class` is AP by category name.
    Figures that do not exist (no small objects, say) are None. `ap` and `ap50` carry bootstrap intervals over images.
    """

    protocol: str
    protocol_version: int
    convention: str
    num_images: int
    stats: dict[str, float | None]
    per_class: dict[str, float | None]
    ap: Estimate
    ap50: Estimate


@dataclass(frozen=True)
class Latency:
    """Time of one forward.

    `samples_ms` are raw: the rounds of the first process, then of the second, ... (device events on a GPU, the wall
    clock elsewhere), beside `host_ms`, the wall clock of the same forwards, and `cpu_ms`, the CPU time of all threads.
    `session` is shared by what was timed in the same rounds: only those may be compared round by round. `marked`
    lists the samples (from 0) that lost their CPU to others, as wall clock and CPU time show: they stay among the raw
    samples, and out of the median and of ratios. `self_ratio` is the noise of the machine:
    one variant of the session timed against itself. `by_part_ms` are medians of a separate instrumented pass.
    """

    protocol: str
    protocol_version: int
    convention: str
    device: str
    dtype: str
    batch_size: int
    height: int
    width: int
    threads: int | None
    median_ms: Estimate
    p95_ms: float
    fps: float
    by_part_ms: dict[str, float]
    samples_ms: list[float]
    warnings: list[str] = field(default_factory=list)
    processes: int = 1
    session: str = ""
    mode: str = "eager"
    host_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    marked: list[int] = field(default_factory=list)
    self_ratio: Estimate | None = None
    joules_per_image: float | None = None
    machine: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Memory:
    """Peak memory in MiB above what the process or allocator held before: of one forward, of one training step."""

    protocol: str
    protocol_version: int
    convention: str
    device: str
    batch_size: int
    height: int
    width: int
    forward_mib: float
    training_step_mib: float | None
    process_peak_mib: float


@dataclass(frozen=True)
class DamCorrelation:
    """Sparse DETR's Corr: share of the decoder's attention mass that falls on tokens the encoder kept, 0..1."""

    protocol: str
    protocol_version: int
    convention: str
    corr: Estimate
    std: float
    per_level: list[float | None]
    kept_fraction: float


@dataclass(frozen=True)
class QuerySpread:
    """Where queries are, in percent of the image's diagonal; entry 0 is where they start, entry i is behind layer i.

    `to_object` is the distance from an object's centre to its nearest queries, `to_neighbour` that from a query to the
    nearest other one.
    """

    to_object: list[Estimate]
    to_neighbour: list[Estimate]


@dataclass(frozen=True)
class Trajectories:
    """Some queries of one image on their way through the decoder, once as it is and once without self-attention.

    All places are fractions (x to the right, y down) of an image of `height` x `width` pixels. `object_boxes` are
    x1, y1, x2, y2. `queries` numbers the queries that end nearest to these objects, as the decoder is. The other two
    are `[layer][query] -> [x, y]`, with an entry 0 where the queries start.
    """

    image_id: int
    height: int
    width: int
    object_boxes: list[list[float]]
    queries: list[int]
    with_self_attention: list[list[list[float]]]
    without_self_attention: list[list[list[float]]]


@dataclass(frozen=True)
class QueryGathering:
    """How queries gather around objects, and what the decoder's self-attention does to them (DAC-DETR, Figs. 1 and 3).

    `per_object` is the number of queries whose matching score for an object is above a threshold, by threshold.
    `trajectories` are of the first images that have objects.
    """

    protocol: str
    protocol_version: int
    convention: str
    num_images: int
    num_objects: int
    per_object: dict[str, Estimate]
    with_self_attention: QuerySpread
    without_self_attention: QuerySpread
    trajectories: list[Trajectories]


@dataclass(frozen=True)
class Pictures:
    """Of which images a cell keeps traces for pictures; by image the tokens, those any layer kept, and Corr (0..1)."""

    protocol: str
    protocol_version: int
    convention: str
    image_ids: list[int]
    num_tokens: list[int]
    num_kept: list[int]
    corr: list[float]


@dataclass(frozen=True)
class BeganWith:
    """Weights that training began with.

    part: what they filled, `backbone` or the whole `detector`.
    source: where the file is published, "a file of the user's", or "random values"; such a one has no file.
    file, sha256: its name and content. adapter: whose parameter names it uses.
    replaced: tensors that began at random values after all, since the data has another number of classes.
    """

    part: str
    source: str
    file: str | None = None
    sha256: str | None = None
    adapter: str | None = None
    replaced: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class TrainingHistory:
    """One entry an epoch: {"epoch", "loss", "losses": {term: value}, "lr", "seconds"}.

    Epochs that are evaluated have "AP", "AP50" and "queries_above_0.6" (0.7, 0.8: `QueryGathering.per_object`) too.
    `began_with` is empty for a backbone that nobody has published weights of. `skipped` numbers the steps, counted from
    1, that somebody had passed over.
    """

    recipe: dict[str, Any]
    epochs: list[dict[str, Any]]
    seconds: float
    images_seen: int
    began_with: list[BeganWith] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)


def to_json(record: Any) -> Any:
    """A dataclass (or dict or list of them) as plain JSON values; NaN and infinities become None."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {f.name: to_json(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, dict):
        return {str(key): to_json(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [to_json(value) for value in record]
    if isinstance(record, float) and not math.isfinite(record):
        return None
    return record
