"""How multiply-adds are counted: an input rule, a counting rule, and what runs.

No two papers count alike, so each published table has a protocol of its own beside `common`. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from detrbench.measure.inputs import Inputs, detectron2_size
from detrbench.measure.rules import (
    DETREX,
    DETREX_SAMPLED,
    EVERY_OP,
    FVCORE,
    FVCORE_KEYS_APART,
    PRODUCTS,
    TWICE,
    CountingRule,
)
from detrbench.measures import COMMON, EVALUATED, NATIVE


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
    def fits_external(self) -> bool:
        """Whether it changes no option, of which a detector from elsewhere has others."""
        return not self.overrides

    @property
    def convention(self) -> str:
        """The rule in words, as it is stored with each figure."""
        runs = "what inference needs" if self.outputs == "final" else "every output that the official code computes"
        changed = "".join(f", {key}={value}" for key, value in self.overrides.items())
        unit = "operations" if self.rule.costs["matmul"] == 2 else "multiply-adds"
        return f"GFLOPs as {unit}, batch 1, no padding; {self.inputs.text}; {runs}{changed}; {self.rule.text}"

    def at(self, height: int, width: int) -> ComplexityProtocol:
        """The same rule on one image of that size, named after it."""
        return replace(self, name=f"{self.name}@{height}x{width}", inputs=Inputs.single(height, width))

    def on(self, inputs: Inputs) -> ComplexityProtocol:
        """The same rule on other images."""
        return replace(self, inputs=inputs)


_SPARSE_COUNTER = "kakaobrain/sparse-detr@f40632c util/benchmark.py"
_DETREX_COUNTER = "detrex tools/analyze_model.py"
_NO_AUXILIARY_HEADS = {"encoder_auxiliary": False}

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        ComplexityProtocol(COMMON, "the same for every method", Inputs.first_100(), EVERY_OP),
        ComplexityProtocol(
            NATIVE,
            "`common` on the detector's own images: of one from elsewhere as large as it says",
            Inputs.first_100(),
            EVERY_OP,
        ),
        ComplexityProtocol(
            EVALUATED,
            "`common` for the detector that a scale evaluates, on images of that scale's size",
            Inputs.first_100(),
            EVERY_OP,
        ),
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
        ComplexityProtocol(
            "twice_640",
            "tables of real-time detectors, of a detector from elsewhere",
            Inputs.single(640, 640),
            TWICE,
            source="Peterande/D-FINE@4a1f73a tools/benchmark/get_info.py, by calflops",
        ),
        ComplexityProtocol(
            "torchvision_table",
            "torchvision's table of its detectors",
            Inputs.single(800, 800),
            PRODUCTS,
            source="pytorch/vision@v0.29.1, `_ops` of the weights; found by matching digits",
        ),
        ComplexityProtocol(
            "rt_detr_table",
            "RT-DETR's tables",
            Inputs.single(640, 640),
            TWICE,
            overrides={"boxes_of": "always"},
            source="lyuwenyu/RT-DETR@068dfde rtdetrv2_pytorch/tools/run_profile.py, which is younger than the tables",
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
