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
from detrbench.measure.rules import DETREX, DETREX_SAMPLED, EVERY_OP, FVCORE, CountingRule


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
            "lite_table",
            "Lite DETR's tables",
            Inputs.single(800, 1066),
            FVCORE,
            "all",
            source="fits one 800x1066 image within 1 %; the repository names no size",
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
    version: int = 1

    @property
    def convention(self) -> str:
        """The rule in words."""
        nms = "no NMS" if self.nms is None else f"NMS at IoU {self.nms}"
        kept = f"top {self.top} scores over queries x classes, {nms}"
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
    """Timed forwards: input size, batch, interleaved rounds, and how warm-up is bounded (forwards a detector)."""

    name: str
    title: str
    height: int = 800
    width: int = 1066
    batch_size: int = 1
    rounds: int = 30
    warmup_min: int = 2
    warmup_max: int = 10
    seed: int = 0
    version: int = 1

    @property
    def convention(self) -> str:
        """The rule in words."""
        return (
            f"forward only, eval and inference mode, float32, batch {self.batch_size} of {self.height}x{self.width} "
            f"random images without padding; data loading and post-processing excluded; after warm-up, "
            f"{self.rounds} rounds interleaved over the variants in shuffled order; median"
        )

    def at(self, height: int, width: int, rounds: int | None = None) -> LatencyProtocol:
        """The same rule on another image size (and number of rounds), for a suite's smaller scales."""
        return replace(self, height=height, width=width, rounds=rounds or self.rounds)


LATENCY = {
    protocol.name: protocol
    for protocol in (
        LatencyProtocol("common", "batch 1 at the papers' size"),
        LatencyProtocol("batch4", "batch 4, as the papers' batched inference", batch_size=4),
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

ALL: Mapping[str, Mapping[str, Any]] = {
    "complexity": COMPLEXITY,
    "accuracy": ACCURACY,
    "latency": LATENCY,
    "memory": MEMORY,
    "dam": DAM,
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
