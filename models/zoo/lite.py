"""Lite DETR (Li et al., CVPR 2023, arXiv 2303.07335); code: IDEA-Research/Lite-DETR@6392353."""

from detrbench.models.zoo import Variant, register_family, with_encoder
from detrbench.models.zoo.deformable import TWO_STAGE
from detrbench.models.zoo.dino import DINO
from detrbench.models.zoo.h_detr import HYBRID

DOC = (
    "Blocks of encoder layers update the coarse levels several times and the finest ones once, with a narrow "
    "feed-forward network. Attention of encoder and decoder weighs its sampled points by query times key."
)


def _on_base(name: str, base: Variant, title: str, **options: object) -> Variant:
    summary = f"Lite DETR on {title}: fine levels are updated seldom and cheaply"
    return with_encoder(base, "lite", name=name, summary=summary, doc=DOC, options={"key_aware": True, **options})


LITE_DINO = _on_base("lite_dino", DINO, "DINO", boxes_of="selected")
LITE_DEFORMABLE = _on_base("lite_deformable_detr", TWO_STAGE, "two-stage Deformable DETR")
LITE_H_DETR = _on_base("lite_h_detr", HYBRID, "H-DETR")

for _variant in (LITE_DINO, LITE_DEFORMABLE, LITE_H_DETR):
    register_family(_variant)
