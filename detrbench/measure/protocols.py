"""Named, versioned rules under which figures are taken. No figure is stored without the name of its protocol.

A complexity protocol is an input rule (which image sizes), a counting rule (what an operation costs) and what runs
(which outputs, which options of the detector). No two papers share one, so each published table has its own here,
beside `common`, ours, which is the same for every method. Imports no torch.

Raise a protocol's `version` whenever its figures change: stored results are keyed by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from detrbench.errors import unknown_name
from detrbench.measure.inputs import Inputs, detectron2_size
from detrbench.measure.rules import DETREX, DETREX_SAMPLED, EVERY_OP, FVCORE, FVCORE_KEYS_APART, CountingRule


@dataclass(frozen=True)
class ComplexityProtocol:
    """Input rule + counting rule + what runs.

    Args:
        outputs: "final", only what inference needs, or "all", with every auxiliary output as in training.
        overrides: options for `models.create` on top of the variant's own.
        source: where the rule comes from, for published tables.
    """

    name: str
    title: str
    inputs: Inputs
    rule: CountingRule
    outputs: Literal["final", "all"] = "final"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None
    version: int = 1

    @property
    def convention(self) -> str:
        """The rule in words, as it is stored with each figure."""
        runs = "what inference needs" if self.outputs == "final" else "every output that the official code computes"
        changed = "".join(f", {key}={value}" for key, value in self.overrides.items())
        return f"GFLOPs as multiply-adds, batch 1, no padding; {self.inputs.text}; {runs}{changed}; {self.rule.text}"

    def at(self, height: int, width: int) -> ComplexityProtocol:
        """The same rule on one image of that size, named after it."""
        return replace(self, name=f"{self.name}@{height}x{width}", inputs=Inputs.single(height, width))


_SPARSE_COUNTER = "kakaobrain/sparse-detr@f40632c util/benchmark.py"
_DETREX_COUNTER = "detrex tools/analyze_model.py"
_NO_AUXILIARY_HEADS = {"encoder_auxiliary": False}

COMPLEXITY = {
    protocol.name: protocol
    for protocol in (
        ComplexityProtocol("common", "the same for every method", Inputs.first_100(), EVERY_OP),
        ComplexityProtocol(
            "deformable_table",
            "Deformable DETR rows of Sparse DETR's Table 1",
            Inputs.single(850, 1040),
            FVCORE,
            "all",
            source=f"{_SPARSE_COUNTER} with approximated=True; found by matching digits",
        ),
        ComplexityProtocol(
            "sparse_table1",
            "Sparse DETR rows of its Table 1",
            Inputs.single(800, 1066),
            FVCORE,
            "all",
            _NO_AUXILIARY_HEADS,
            source=f"{_SPARSE_COUNTER} returns the last of the 100 images, without the encoder's auxiliary heads; "
            "found by matching digits",
        ),
        ComplexityProtocol(
            "focus_table",
            "Focus-DETR's tables",
            Inputs.first_100(detectron2_size),
            DETREX,
            "all",
            source=f"{_DETREX_COUNTER}, compiled op; found by matching digits",
        ),
        ComplexityProtocol(
            "focus_table_sparse",
            "rows with Sparse DETR's encoder in Focus-DETR's tables",
            Inputs.first_100(detectron2_size),
            DETREX,
            "all",
            _NO_AUXILIARY_HEADS,
            source=f"{_DETREX_COUNTER}, compiled op, without the encoder's auxiliary heads; found by matching digits",
        ),
        ComplexityProtocol(
            "lite_table",
            "Lite DETR's tables",
            Inputs.single(800, 1066),
            FVCORE_KEYS_APART,
            "all",
            source="fits one 800x1066 image within 1 %; the repository names no size",
            version=2,
        ),
        *(
            ComplexityProtocol(
                f"official_{name}",
                f"the official counter, {inputs.text}",
                inputs,
                FVCORE,
                "all",
                source=_SPARSE_COUNTER,
            )
            for name, inputs in (
                ("800x1066", Inputs.single(800, 1066)),
                ("850x1040", Inputs.single(850, 1040)),
                ("first100", Inputs.first_100()),
            )
        ),
        *(
            ComplexityProtocol(
                f"{rule.name}_{name}", f"detrex's counter, {inputs.text}", inputs, rule, "all", source=_DETREX_COUNTER
            )
            for rule in (DETREX, DETREX_SAMPLED)
            for name, inputs in (
                ("800x1066", Inputs.single(800, 1066)),
                ("850x1040", Inputs.single(850, 1040)),
                ("first100", Inputs.first_100(detectron2_size)),
            )
        ),
    )
}


# ------------------------------------------------------------------------------------------- other protocols


@dataclass(frozen=True)
class AccuracyProtocol:
    """How detections are made and scored: `top` scores over queries x classes, NMS at that IoU or None."""

    name: str
    title: str
    top: int
    nms: float | None = None
    max_detections: int = 100  # of one class in one image, in the scoring
    version: int = 2

    @property
    def convention(self) -> str:
        """The rule in words."""
        kept = f"top {self.top} scores over queries x classes"
        kept = f"{kept}, no NMS" if self.nms is None else f"NMS within each class at IoU {self.nms}, then the {kept}"
        return f"COCO box AP (pycocotools), {kept}, maxDets {self.max_detections}"


ACCURACY = {
    protocol.name: protocol
    for protocol in (
        AccuracyProtocol("common", "the same for every method", 300),
        AccuracyProtocol("paper_top100", "Deformable DETR, Sparse DETR", 100),
        AccuracyProtocol("paper_top300", "DINO, Focus-DETR, Lite DETR", 300),
        AccuracyProtocol("dac", "DAC-DETR's official evaluation", 300, nms=0.8),
    )
}


@dataclass(frozen=True)
class LatencyProtocol:
    """Timed forwards: which input, how it is run, and how often.

    Args:
        batch_size: images in a forward.
        mode: how the detector runs: as it is, through `torch.compile`, or replayed from a CUDA graph.
        window_seconds: None times single forwards (burst); else a sample is a window of that length in which forwards
            follow each other without waiting for the device (sustained), which is also how energy is read.
        sizes: one fixed height x width, or those of the first 100 images of val2017, one after the other.
        rounds: in each process; a round times every variant once.
        processes: how many processes repeat it all.
        warmup_seconds: the least time to warm up each variant; it goes on until the time settles, at most 10 x longer.
    """

    name: str
    title: str
    height: int = 800
    width: int = 1066
    batch_size: int = 1
    mode: Literal["eager", "compiled", "cuda_graph"] = "eager"
    window_seconds: float | None = None
    sizes: Literal["fixed", "val2017"] = "fixed"
    rounds: int = 30
    processes: int = 3
    warmup_seconds: float = 1.0
    seed: int = 0
    version: int = 2

    @property
    def convention(self) -> str:
        """The rule in words."""
        fixed = f"{self.height}x{self.width}"
        size = fixed if self.sizes == "fixed" else "the sizes of val2017's first 100 images"
        how = {"eager": "eager", "compiled": "torch.compile", "cuda_graph": "replayed from a CUDA graph"}[self.mode]
        window = self.window_seconds
        sample = "single forwards" if window is None else f"windows of {window:g} s of forwards without pause"
        repeats = "one process" if self.processes == 1 else f"each of {self.processes} processes"
        return (
            f"forward only, {how}, eval and inference mode, float32, batch {self.batch_size} of {size} random images "
            f"without padding; data loading and post-processing excluded; {sample}; after warm-up, {self.rounds} "
            f"rounds interleaved over the variants in shuffled order in {repeats}; median"
        )

    def at(self, height: int, width: int, rounds: int | None = None) -> LatencyProtocol:
        """The quick form for a suite's smaller scales: that size, one process, short warm-up and windows."""
        window = self.window_seconds and min(self.window_seconds, 0.2)
        smaller = replace(self, height=height, width=width, sizes="fixed", window_seconds=window)
        return replace(smaller, rounds=rounds or min(self.rounds, 30), processes=1, warmup_seconds=0.1)


LATENCY = {
    protocol.name: protocol
    for protocol in (
        LatencyProtocol("common", "batch 1 at the papers' size"),
        LatencyProtocol("batch4", "batch 4, as the papers' batched inference", batch_size=4),
        LatencyProtocol("batch8", "batch 8", batch_size=8),
        LatencyProtocol("compiled", "batch 1 through torch.compile", mode="compiled"),
        LatencyProtocol("cuda_graph", "batch 1 replayed from a CUDA graph", mode="cuda_graph"),
        LatencyProtocol("sustained", "batch 1 without pause; energy", window_seconds=2.0, rounds=7),
        LatencyProtocol("val2017", "batch 1 at the sizes of val2017", sizes="val2017", rounds=100),
    )
}


@dataclass(frozen=True)
class MemoryProtocol:
    """One forward in inference mode, and one training step, on random images of that size."""

    name: str
    title: str
    height: int = 800
    width: int = 1066
    batch_size: int = 1
    objects: int = 10  # targets an image in the training step
    version: int = 1

    @property
    def convention(self) -> str:
        """The rule in words."""
        return (
            f"MiB (2**20 bytes), batch {self.batch_size} of {self.height}x{self.width}, float32; PyTorch's allocator, "
            f"above weights and images; a training step is forward with every auxiliary output, loss on {self.objects} "
            "objects an image, backward and AdamW, gradients and moments included"
        )

    def at(self, height: int, width: int) -> MemoryProtocol:
        """The same rule on another image size."""
        return replace(self, height=height, width=width)


MEMORY = {"common": MemoryProtocol("common", "batch 1 at the papers' size")}


@dataclass(frozen=True)
class DamProtocol:
    """Sparse DETR's Corr."""

    name: str
    title: str
    version: int = 1

    @property
    def convention(self) -> str:
        """The rule in words."""
        return (
            "share (0..1) of the decoder's attention mass, splatted at location x (W, H) without half-pixel shift and "
            "summed over layers and heads, on tokens that the encoder kept; per image, then mean over images; "
            "not a Pearson correlation"
        )


DAM = {"common": DamProtocol("common", "Sparse DETR's Corr as its code computes it")}


@dataclass(frozen=True)
class QueriesProtocol:
    """How queries gather around objects: DAC-DETR's Figures 3 and 1.

    Args:
        thresholds: of the matching score.
        nearest: of so many queries the distance to an object is taken; DAC-DETR trains at most six for each.
    """

    name: str
    title: str
    thresholds: tuple[float, ...] = (0.6, 0.7, 0.8)
    nearest: int = 6
    version: int = 1

    @property
    def convention(self) -> str:
        """The rule in words."""
        return (
            "matching score: 0.7 x IoU + 0.3 x probability of the object's class, of the boxes and logits that "
            "inference returns; queries above the threshold, mean over objects, crowd left out. Distances in percent "
            "of the image's diagonal, between centres of the boxes that each layer predicts (layer 0: where queries "
            f"start): of an object to its {self.nearest} nearest queries, mean over objects; of a query to the nearest "
            "other one, mean over queries; with the decoder's self-attention, and without it in all layers. "
            "Intervals: bootstrap over images"
        )


QUERIES = {"common": QueriesProtocol("common", "DAC-DETR's Figures 3 and 1")}


@dataclass(frozen=True)
class PicturesProtocol:
    """Which images are looked into, and how much is kept of each.

    Args:
        images: the first so many of the evaluated images that hold two objects or more.
        longest: side of the stored image in pixels; smaller images stay as they are.
        detections: best ones that are stored.
        objects: whose queries' sampling points are stored: the largest ones.
        queries: whose way through the decoder is stored.
    """

    name: str
    title: str
    images: int = 2
    longest: int = 480
    detections: int = 50
    objects: int = 3
    queries: int = 24
    version: int = 1

    @property
    def convention(self) -> str:
        """The rule in words."""
        return (
            f"the first {self.images} evaluated images with two objects or more, batch 1 without padding; the best "
            f"{self.detections} detections, sampling points for the {self.objects} largest objects, the way of the "
            f"{self.queries} queries that come nearest to the largest one"
        )


PICTURES = {"common": PicturesProtocol("common", "what happens inside, on a few images")}

ALL: Mapping[str, Mapping[str, Any]] = {
    "complexity": COMPLEXITY,
    "accuracy": ACCURACY,
    "latency": LATENCY,
    "memory": MEMORY,
    "dam": DAM,
    "queries": QUERIES,
    "pictures": PICTURES,
}


def names(measure: str) -> Iterable[str]:
    """The protocols of one measure, `common` first."""
    return ALL[measure].keys()


def get(measure: str, name: str = "common") -> Any:
    """A protocol by measure and name; an unknown name is a `UsageError` with the nearest match."""
    if measure not in ALL:
        raise unknown_name("measure", measure, ALL)
    if name not in ALL[measure]:
        raise unknown_name(f"{measure} protocol", name, ALL[measure])
    return ALL[measure][name]
