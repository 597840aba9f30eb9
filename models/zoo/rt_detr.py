"""RT-DETR (Zhao et al., CVPR 2024, arXiv 2304.08069) and RT-DETRv2 (Lv et al., 2024, arXiv 2407.17140).

Code: lyuwenyu/RT-DETR@068dfde, rtdetr_pytorch and rtdetrv2_pytorch. Images are 640x640 whatever their shape.
"""

from dataclasses import replace

from detrbench.models.zoo import BACKBONES, RESNETS_D, OfBackbone, Variant, register_family

SMALLER = ("resnet18_vd", "resnet34_vd")

RT_DETR = Variant(
    name="rt_detr",
    summary="RT-DETR: a hybrid encoder, queries from the encoder's best tokens",
    doc="Dense attention on the coarsest level alone, convolutions from level to level; the 300 best encoder tokens "
    "are the queries, with their boxes, and contents without gradient. Class scores learn the overlap of boxes "
    "(varifocal loss); training restores noised objects. ResNet-18 has three decoder layers, ResNet-34 four.",
    parts={
        "neck": "batch_norm",
        "encoder": "hybrid",
        "queries": "tokens",
        "decoder": "rt_detr",
        "heads": "linear_mlp",
        "denoising": "cdn",
    },
    options={
        "num_levels": 3,
        "num_decoder_layers": OfBackbone({"resnet18_vd": 3, "resnet34_vd": 4}),
        "dropout": 0.0,
        "num_classes": 80,
        "encoder_dim": OfBackbone({"resnet101_vd": 384}),
        "encoder_ffn_dim": OfBackbone({"resnet101_vd": 2048}),
        "fusion_expansion": OfBackbone(dict.fromkeys(SMALLER, 0.5)),
        "class_loss": "varifocal",
        "class_weight": 1.0,
    },
    image_size=(640, 640, True),
)
V2 = replace(
    RT_DETR,
    name="rt_detr_v2",
    summary="RT-DETRv2: RT-DETR with a choice of sampling, trained otherwise",
    doc=f"{RT_DETR.doc} Version 2 samples as many points on a level as it is told (level_points), bilinearly or the "
    "nearest cell (sampling); by default it computes what version 1 does, and its recipe differs.",
)

for _variant in (RT_DETR, V2):
    register_family(_variant, (*BACKBONES, *RESNETS_D))
