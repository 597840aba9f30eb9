"""DAC-DETR (Hu et al., NeurIPS 2023, openreview 8JMexYVcXB); code: huzhengdongcs/DAC-DETR@a186a20."""

from dataclasses import replace

from detrbench.models.zoo import register_family
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
        "box_noise": 0.4,
        "class_loss": "iou_aware",
        "class_weight": 1.0,
        "proposal_class_weight": 2.0,
    },
)

register_family(DAC)
