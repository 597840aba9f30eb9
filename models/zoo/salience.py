"""Salience-DETR (Hou et al., CVPR 2024, arXiv 2403.16131); code: xiuqhou/Salience-DETR@6262e05."""

from detrbench.models.zoo import register_family, with_encoder
from detrbench.models.zoo.dino import DINO

SALIENCE = with_encoder(
    DINO,
    "salience",
    name="salience_detr",
    summary="Salience-DETR: the encoder updates salient tokens of each level, queries stand apart",
    doc="DINO with a selector that learns, from the objects' boxes, how near a token is to an object's middle. Each "
    "level keeps a share of its own, each layer updates fewer of these; the rest gets a background embedding, and "
    "convolutions fuse the levels. Of tokens side by side only the best becomes a query. Classes learn the IoU.",
    options={
        "logit_eps": 1e-3,
        "iou_eps": 0.0,
        "shared_heads": False,
        "position_temperature": 10000,
        "position_offset": -0.5,
        "projection_bias": False,
        "redundancy_removal": True,
        "class_loss": "varifocal",
        "no_object_row": False,
        "swin_frozen_stages": 2,
    },
)

register_family(SALIENCE)
