"""H-DETR (Jia et al., CVPR 2023, arXiv 2207.13080) and its baseline; code: HDETR/H-Deformable-DETR@f58ceb1."""

from dataclasses import replace

from detrbench.models.zoo import register_family
from detrbench.models.zoo.deformable import H_DETR as CONVENTIONS
from detrbench.models.zoo.deformable import TWO_STAGE

PLUS_PLUS = replace(
    TWO_STAGE,
    name="deformable_detr_pp",
    summary="Deformable-DETR++: mixed query selection, look forward twice, no dropout",
    doc="Two-stage Deformable DETR with DINO's tricks: learned contents, and box losses that reach two layers back; "
    "what H-DETR and DAC-DETR start from.",
    options={
        **TWO_STAGE.options,
        **CONVENTIONS,
        "dropout": 0.0,
        "mixed_selection": True,
        "look_forward_twice": True,
    },
    sources={},
)
HYBRID = replace(
    PLUS_PLUS,
    name="h_detr",
    summary="H-DETR: in training, 1500 further queries with six for each object",
    doc="Deformable-DETR++ whose decoder also trains on a second group of queries, matched one-to-many. Inference is "
    "that of Deformable-DETR++.",
    parts={**PLUS_PLUS.parts, "one_to_many": "hybrid"},
)

for _variant in (PLUS_PLUS, HYBRID):
    register_family(_variant)
