"""MS-DETR (Zhao et al., CVPR 2024, arXiv 2401.03989); code: Atten4Vis/MS-DETR@c015d65."""

from dataclasses import replace

from detrbench.models.zoo import Variant, register_family
from detrbench.models.zoo.deformable import H_DETR as CONVENTIONS
from detrbench.models.zoo.deformable import TWO_STAGE
from detrbench.models.zoo.h_detr import PLUS_PLUS

MIXED = {
    **CONVENTIONS,
    "self_attention_first": False,
    "proposals_matched_by": "anchor",
    "class_weight": 1.0,
    "proposal_class_weight": 2.0,
}


def _on_base(name: str, base: Variant, title: str) -> Variant:
    return replace(
        base,
        name=name,
        summary=f"MS-DETR on {title}: in training, each decoder layer predicts twice, once one-to-many",
        doc=f"{title} whose decoder layers sample the memory before their queries see each other. In training, the "
        "queries between the two are read too, through a feed-forward network of their own, and learn one-to-many; "
        "objects are matched to the boxes that proposals are predicted from. Inference costs what the base's does.",
        parts={**base.parts, "auxiliary_decoder": "mixed"},
        options={**base.options, **MIXED},
        sources={},
    )


for _variant in (
    _on_base("ms_detr", PLUS_PLUS, "Deformable-DETR++"),
    _on_base("ms_deformable_detr", TWO_STAGE, "two-stage Deformable DETR"),
):
    register_family(_variant)
