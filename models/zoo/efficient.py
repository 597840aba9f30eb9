"""Efficient DETR's query initialisation (Yao et al., 2021, arXiv 2104.01318), as kakaobrain/sparse-detr@f40632c has it.

It is the dense baseline of Sparse DETR's tables ("top-k & BBR").
"""

from dataclasses import replace

from detrbench.models.zoo import register_family
from detrbench.models.zoo.deformable import TWO_STAGE

EFFICIENT = replace(
    TWO_STAGE,
    name="efficient_detr",
    summary="Deformable DETR with top-k object queries and box refinement",
    doc="Two-stage Deformable DETR whose tokens are ranked by their best class and hand their own features to the "
    "decoder as content; only the position is projected from the box.",
    options={**TWO_STAGE.options, "ranking": "max_class", "content": "memory"},
    sources={},
)

register_family(EFFICIENT)
