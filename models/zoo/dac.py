"""DAC-DETR (Hu et al., NeurIPS 2023, openreview 8JMexYVcXB); code: huzhengdongcs/DAC-DETR@a186a20."""

from dataclasses import replace

from detrbench.models.zoo import OfBackbone, register_family
from detrbench.models.zoo.h_detr import PLUS_PLUS

DAC = replace(
    PLUS_PLUS,
    name="dac_detr",
    summary="DAC-DETR: in training, the decoder runs again without self-attention, several queries for each object",
    doc="Deformable-DETR++ with 900 queries, trained with DINO's contrastive denoising, a second pass through the "
    "decoder that learns one-to-many, and class scores that learn the quality of boxes. Inference is that of "
    "Deformable-DETR++.",
    parts={**PLUS_PLUS.parts, "denoising": "cdn", "auxiliary_decoder": "collaborative"},
    options={
        **PLUS_PLUS.options,
        "num_queries": 900,
        "window_size": OfBackbone({"swin_large": 12}),  # after ImageNet-22k at 384 pixels, unlike H-DETR's
        "box_noise": 0.4,
        "class_loss": "iou_aware",
        "class_weight": 1.0,
        "proposal_class_weight": 2.0,
    },
)

register_family(DAC)
