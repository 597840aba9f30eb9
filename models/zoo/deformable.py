"""Deformable DETR (Zhu et al., ICLR 2021, arXiv 2010.04159); code: fundamentalvision/Deformable-DETR@11169a6."""

from detrbench.models.zoo import OfBackbone, Variant, register_family

PARTS = {
    "neck": "projection",
    "encoder": "deformable",
    "queries": "learnable",
    "decoder": "deformable",
    "heads": "linear_mlp",
}

# IDEA-Research/detrex@e244e6c: 80 contiguous classes, other epsilons and class weight; of a ResNet only the stem is
# frozen, of a Swin Transformer nothing. Swin-T skips fewer blocks; the others have detectron2's default, 0.2.
DETREX: dict[str, object] = {
    "num_classes": 80,
    "logit_eps": 1e-3,
    "iou_eps": 1e-6,
    "class_weight": 1.0,
    "frozen_stages": 1,
    "swin_frozen_stages": 0,
    "drop_path": OfBackbone({"swin_tiny": 0.1}),
}
# huggingface/transformers@v5.23.0 computes as the original does, but freezes no stage of its backbone.
TRANSFORMERS: dict[str, object] = {"frozen_stages": 0}
# HDETR/H-Deformable-DETR@f58ceb1 builds on the original, with wider feed-forward networks. Of a Swin Transformer it
# freezes nothing, and its Swin-L is that of ImageNet-22k at 224 pixels.
H_DETR: dict[str, object] = {"ffn_dim": 2048, "swin_frozen_stages": 0, "window_size": OfBackbone({"swin_large": 7})}
SOURCES: dict[str, dict[str, object]] = {"detrex": DETREX, "transformers": TRANSFORMERS}

PLAIN = Variant(
    name="deformable_detr",
    summary="Deformable DETR: sparse keys, learned queries",
    doc="Each query attends to four sampled points on each of four levels. One pair of heads serves all six decoder "
    "layers, which share one two-dimensional reference point a query.",
    parts=PARTS,
    options={"shared_heads": True},
    # kakaobrain/sparse-detr@f40632c computes the plain detector exactly as the original.
    sources={**SOURCES, "sparse_detr": {}},
)
REFINE = Variant(
    name="deformable_detr_refine",
    summary="Deformable DETR with iterative box refinement",
    doc="Each decoder layer has its own heads and corrects the box of the layer before (paper, section 4.2).",
    parts=PARTS,
    options={"refine_boxes": True},
    sources=SOURCES,
)
TWO_STAGE = Variant(
    name="deformable_detr_two_stage",
    summary="Deformable DETR, two-stage with box refinement",
    doc="Queries are made from the 300 encoder tokens whose first class logit is highest (paper, section 4.2); the "
    "proposal head is trained with every label set to class 0.",
    parts={**PARTS, "queries": "encoder"},
    options={"refine_boxes": True},
    sources={**SOURCES, "h_detr": H_DETR},
)

for _variant in (PLAIN, REFINE, TWO_STAGE):
    register_family(_variant)
