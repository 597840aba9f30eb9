"""DINO (Zhang et al., ICLR 2023, arXiv 2203.03605); code: IDEA-Research/DINO@faa8520."""

from dataclasses import replace

from detrbench.models.zoo import Variant, register_family
from detrbench.models.zoo.deformable import DETREX as DEFORMABLE_DETREX
from detrbench.models.zoo.deformable import PARTS

# IDEA-Research/detrex@e244e6c: as its Deformable DETR; heads of each layer are its own, positions of that code base.
DETREX = {
    **DEFORMABLE_DETREX,
    "shared_heads": False,
    "position_temperature": 10000,
    "position_offset": -0.5,
    "no_object_row": False,
}

DINO = Variant(
    name="dino",
    summary="DINO, four scales: contrastive denoising, mixed query selection, look forward twice",
    doc="Queries start at the boxes of the 900 best encoder tokens, with learned contents; each decoder layer makes "
    "its query positions from its boxes, and a box loss reaches two layers back. In training, noised objects are "
    "restored and noisier ones rejected. One pair of heads serves all decoder layers.",
    parts={**PARTS, "queries": "mixed", "decoder": "dino", "denoising": "cdn"},
    options={
        "num_queries": 900,
        "ffn_dim": 2048,
        "dropout": 0.0,
        "logit_eps": 1e-3,
        "iou_eps": 1e-6,
        "shared_heads": True,
        "class_weight": 1.0,
        "swin_frozen_stages": 0,
        "position_temperature": 20,
        "position_offset": 0.0,
    },
    # IDEA-Research/Lite-DETR@6392353 computes DINO as the original, with proposal boxes of the selected tokens only.
    sources={"detrex": DETREX, "lite_detr": {"boxes_of": "selected"}},
)


def with_scales(levels: int, finest_stride: int, reason: str) -> Variant:
    """DINO on that many levels, the finest of that stride; the coarsest is always of stride 64."""
    return replace(
        DINO,
        name=f"dino_{levels}scale",
        summary=f"DINO on {levels} scales, strides {finest_stride} to 64",
        doc=f"{DINO.doc} {reason}",
        options={**DINO.options, "num_levels": levels, "finest_stride": finest_stride},
    )


FIVE_SCALE = with_scales(5, 4, "The level of stride 4 is used too.")
THREE_SCALE = with_scales(3, 16, "Lite DETR's baseline that drops the level of stride 8 (its Table 5).")
TWO_SCALE = with_scales(2, 32, "Lite DETR's baseline that drops the levels of strides 8 and 16 (its Table 5).")

for _variant in (DINO, FIVE_SCALE, THREE_SCALE, TWO_SCALE):
    register_family(_variant)
