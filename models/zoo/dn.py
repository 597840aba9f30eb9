"""DN-Deformable-DETR (Li et al., CVPR 2022, arXiv 2203.01305), as IDEA-Research/detrex@e244e6c has it."""

from detrbench.models.zoo import Variant, register_family
from detrbench.models.zoo.deformable import DETREX, PARTS

DN_DEFORMABLE = Variant(
    name="dn_deformable_detr",
    summary="DN-Deformable-DETR: learned boxes as queries, denoising",
    doc="Queries are learned boxes with learned contents; each decoder layer makes its query positions from its boxes, "
    "scaled by the content. In training, five noised copies of all objects stand in front of the queries and are to be "
    "restored.",
    parts={**PARTS, "queries": "anchors", "decoder": "dab", "denoising": "dn"},
    options={**DETREX, "ffn_dim": 2048, "dropout": 0.0},
)

register_family(DN_DEFORMABLE)
