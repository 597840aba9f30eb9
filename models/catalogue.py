"""The parts that come with detrbench: one entry each, with the options that it takes. Imports no torch.

What an option means and which values it takes is said here, and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from detrbench.models.options import ListOf, Maybe, OneOf, Option, Real, Relation, Whole
from detrbench.models.parts import Part, register_part

# What every part may read: see `Dimensions`.
COMMON: dict[str, Option] = {
    "hidden_dim": Option(256, "width of a token", Whole(4)),
    "num_heads": Option(8, "attention heads", Whole(1)),
    "num_levels": Option(4, "feature levels, stride 8 upward", Whole(1)),
    "num_points": Option(4, "sampling points of a head on each level", Whole(1)),
    "ffn_dim": Option(1024, "hidden width of the feed-forward networks", Whole(1)),
    "dropout": Option(0.1, "dropout rate while training", Real(0, below=1)),
    "num_encoder_layers": Option(6, "encoder layers", Whole(1)),
    "num_decoder_layers": Option(6, "decoder layers", Whole(1)),
    "num_queries": Option(300, "object queries", Whole(1)),
    "num_classes": Option(91, "class logits; 91 = COCO category ids, as the original repositories", Whole(1)),
    "key_aware": Option(False, "sampled attention weighs points by query times key (Lite DETR)"),
    "logit_eps": Option(
        1e-5, "clamp of the inverse sigmoid (1e-3 in detrex, DINO and Lite DETR)", Real(above=0, below=0.5)
    ),
}

# What the training objective reads.
CRITERION: dict[str, Option] = {
    "class_weight": Option(
        2.0, "weight of the class loss beside 5 for L1 and 2 for GIoU (1 in DINO and its heirs)", Real(0)
    ),
    "proposal_class_weight": Option(
        None, "the same for the encoder's proposals, where it differs (2 in DAC-DETR)", Maybe(Real(0))
    ),
    "class_loss": Option(
        "focal",
        "'focal', or scores learn the quality of boxes: 'iou_aware' (Align-DETR, DAC-DETR), 'varifocal' (RT-DETR)",
        OneOf("focal", "iou_aware", "varifocal"),
    ),
    "iou_eps": Option(
        0.0, "added to the areas that the GIoU loss divides by (1e-6 in detrex, DINO and Lite DETR)", Real(0, below=1)
    ),
}


def _multiple_of(divisor: int, why: str) -> Relation:
    return Relation(
        "hidden_dim", lambda given: given["hidden_dim"] % divisor == 0, lambda given: f"a multiple of {divisor} ({why})"
    )


def _one_for_each(name: str, what: str, number: str, each: str) -> Relation:
    """A list has as many entries as another option says; none at all may be none."""
    return Relation(
        name,
        lambda given: given[name] is None or len(given[name]) == given[number],
        lambda given: f"{given[number]} {what}, one for each {each}",
    )


# Holds for every detector.
COMMON_RELATIONS = (
    _multiple_of(4, "sine and cosine of x and y"),
    Relation(
        "num_heads",
        lambda given: given["hidden_dim"] % given["num_heads"] == 0,
        lambda given: f"a divisor of hidden_dim, {given['hidden_dim']}",
    ),
)

STRIDES = (4, 8, 16, 32)  # of a backbone's levels


def _backbone_levels(given: Mapping[str, Any]) -> int:
    return len(STRIDES) - STRIDES.index(given["finest_stride"])


_FINEST = {"finest_stride": Option(8, "stride of the finest level handed to the neck: 4, 8, 16 or 32", OneOf(*STRIDES))}
_ENOUGH_LEVELS = (
    Relation(
        "num_levels",
        lambda given: given["num_levels"] >= _backbone_levels(given),
        lambda given: f"{_backbone_levels(given)} or more, as a backbone has from stride {given['finest_stride']} on",
    ),
)
_FROZEN_STAGES = Option(2, "stages without gradient: 1 the stem, 2 the stem and the first stage, ...", Whole(0, 5))
_RESNET = {**_FINEST, "frozen_stages": _FROZEN_STAGES}


def _resnet_d(frozen: bool) -> dict[str, Option]:
    return {
        **_FINEST,
        "frozen_stages": replace(_FROZEN_STAGES, default=int(frozen)),
        "frozen_norms": Option(frozen, "batch norms keep their statistics and factors"),
        "pixels": Option(
            "unit",
            "'unit' reads images in [0, 1], as RT-DETR; 'imagenet' less ImageNet's mean, over its deviation",
            OneOf("unit", "imagenet"),
        ),
    }


def _swin(window_size: int) -> dict[str, Option]:
    return {
        **_FINEST,
        "window_size": Option(
            window_size, "side of an attention window in cells (7, or 12 after ImageNet at 384)", Whole(1)
        ),
        "drop_path": Option(
            0.2, "rate at which the last block is skipped while training; earlier ones in proportion", Real(0, below=1)
        ),
        # Not ResNet's `frozen_stages`: a code base that freezes a ResNet's stem (detrex) may freeze nothing here.
        "swin_frozen_stages": Option(
            2, "stages without gradient, the patch embedding counted as the first", Whole(0, 5)
        ),
    }


def _backbone(name: str, factory: str, summary: str, options: Mapping[str, Option]) -> Part:
    return Part("backbone", name, f"detrbench.models.backbones.{factory}", summary, options, relations=_ENOUGH_LEVELS)


BACKBONES = (
    _backbone("resnet50", "resnet:resnet50", "ResNet-50, frozen batch norm (torchvision)", _RESNET),
    _backbone("resnet101", "resnet:resnet101", "ResNet-101, frozen batch norm (torchvision)", _RESNET),
    _backbone("resnet18_vd", "resnet_d:resnet18_vd", "ResNet-18-D, batch norm that is trained", _resnet_d(False)),
    _backbone("resnet34_vd", "resnet_d:resnet34_vd", "ResNet-34-D, batch norm that is trained", _resnet_d(False)),
    _backbone("resnet50_vd", "resnet_d:resnet50_vd", "ResNet-50-D, frozen batch norm", _resnet_d(True)),
    _backbone("resnet101_vd", "resnet_d:resnet101_vd", "ResNet-101-D, frozen batch norm", _resnet_d(True)),
    _backbone("swin_tiny", "swin:swin_tiny", "Swin-T (torchvision's blocks)", _swin(7)),
    _backbone("swin_base", "swin:swin_base", "Swin-B as trained on ImageNet-22k at 224 pixels", _swin(7)),
    _backbone("swin_base_384", "swin:swin_base", "Swin-B as trained on ImageNet-22k at 384 pixels", _swin(12)),
    _backbone(
        "swin_large",
        "swin:swin_large",
        "Swin-L as trained on ImageNet-22k at 384 pixels (224: window_size=7)",
        _swin(12),
    ),
    _backbone(
        "tiny",
        "tiny:Tiny",
        "a small convolutional network for runs on a CPU",
        {**_FINEST, "width": Option(32, "channels at stride 4; doubled at each later stage", Whole(2))},
    ),
)

_TEMPERATURE = Option(10000, "of the sine embedding (20 in DINO)", Whole(1))
NECKS = (
    Part(
        "neck",
        "projection",
        "detrbench.models.neck:ProjectionNeck",
        "1x1 convolutions, one more strided level, sine positions",
        {
            "position_temperature": _TEMPERATURE,
            "position_offset": Option(
                -0.5, "added to the cell count before scaling; -0.5 means the cell's centre (0 in DINO)", Real(-1, 1)
            ),
            "projection_bias": Option(True, "the convolutions add a bias in front of their norm"),
        },
        relations=(_multiple_of(32, "groups of the neck's norm"),),
    ),
    Part(
        "neck",
        "batch_norm",
        "detrbench.models.neck:BatchNormNeck",
        "the same with batch norm and sine positions of rows and columns (RT-DETR)",
        {"position_temperature": _TEMPERATURE},
    ),
)

_SPARSE = {
    "keep_ratio": Option(
        0.3,
        "share of an image's tokens that the encoder updates; padding is none of them, and one token more is kept",
        Real(above=0, maximum=1),
    ),
    "encoder_auxiliary": Option(True, "predict and supervise boxes of the kept tokens after each layer but the last"),
    "dual_attention": Option(False, "dense attention among the best tokens too (Focus-DETR's Table 11)"),
}
_FOCUS = {
    "keep_ratios": Option(
        [0.5, 0.4, 0.3, 0.3, 0.2, 0.1],
        "share of the tokens that each layer updates: the best of one ranking, so smaller shares lie in larger ones",
        ListOf(Real(above=0, maximum=1)),
    ),
    "modulation": Option(
        "top_down",
        "scores of a level modulate the next: 'top_down' from coarse to fine, 'bottom_up' from fine to coarse, 'none'",
        OneOf("top_down", "bottom_up", "none"),
    ),
    "foreground_supervision": Option(True, "train the scores with the objects' boxes"),
    "scale_intervals": Option(
        [[-1, 64], [64, 128], [128, 256], [256, 999999]],
        "(least, most] of each level: which boxes its tokens may lie in, by the distance to the farthest side in "
        "pixels; the paper's best overlap (Table 8): [-1, 64], [64, 256], [128, 512], [256, 999999]",
        ListOf(ListOf(Real(), length=2)),
    ),
    "dual_attention": Option(True, "dense attention among the best tokens"),
    "fine_tokens": Option(300, "tokens of the dual attention; all where there are fewer", Whole(1)),
    "category_score": Option(True, "class logits help to choose those tokens"),
}
_SALIENCE = {
    "level_ratios": Option(
        [0.4, 0.8, 1.0, 1.0],
        "share of each level's tokens that are kept, fine to coarse",
        ListOf(Real(above=0, maximum=1)),
    ),
    "layer_ratios": Option(
        [1.0, 0.8, 0.6, 0.6, 0.4, 0.2],
        "share of those tokens that each layer updates, the best of one ranking",
        ListOf(Real(above=0, maximum=1)),
    ),
    "scale_intervals": Option(
        [[-1, 64], [64, 128], [128, 256], [256, 99999]],
        "(least, most] of each level: which boxes make its tokens salient, by the distance to the farthest side in "
        "pixels",
        ListOf(ListOf(Real(), length=2)),
    ),
    "fine_tokens": Option(300, "tokens of the dual attention; all where there are fewer", Whole(1)),
    "background_embedding": Option(
        True, "tokens that the last layer leaves out get a learned embedding of their place"
    ),
    "background_cells": Option(200, "rows and columns that it knows, and a level may have", Whole(1)),
    "token_fusion": Option(True, "convolutions behind the layers, from coarse to fine and back (RepVGG, PANet)"),
}
_PAIRS_FIT = (
    _one_for_each("scale_intervals", "pairs", "num_levels", "level"),
    Relation(
        "scale_intervals",
        lambda given: all(least < most for least, most in given["scale_intervals"]),
        lambda given: "pairs [least, most] with least below most",
    ),
)
_FOCUS_FITS = (_one_for_each("keep_ratios", "shares", "num_encoder_layers", "encoder layer"), *_PAIRS_FIT)
_SALIENCE_FITS = (
    _one_for_each("level_ratios", "shares", "num_levels", "level"),
    _one_for_each("layer_ratios", "shares", "num_encoder_layers", "encoder layer"),
    *_PAIRS_FIT,
)
_LITE = {
    "high_levels": Option(3, "coarse levels that every layer updates: x of HxLy", Whole(1)),
    "high_updates": Option(2, "updates of the high levels in a block: A of (A+1)xB", Whole(1)),
    "blocks": Option(3, "B of (A+1)xB; there are A times B layers, whatever num_encoder_layers says", Whole(1)),
    "low_updates": Option(
        True,
        "update the low levels once a block; otherwise they are only looked at, and the high ones alone handed on "
        "(Table 5: high-level fusion without low-level fusion)",
    ),
}
_LITE_FITS = (
    Relation(
        "high_levels",
        lambda given: given["high_levels"] < given["num_levels"],
        lambda given: f"1 to {given['num_levels'] - 1}, so that low levels are left",
    ),
)

ENCODERS = (
    Part(
        "encoder",
        "deformable",
        "detrbench.models.encoders.deformable:DeformableEncoder",
        "Deformable DETR: every token attends to sampled keys",
    ),
    Part(
        "encoder",
        "sparse",
        "detrbench.models.encoders.sparse:by_attention",
        "Sparse DETR: only tokens that the decoder is expected to use are updated",
        _SPARSE,
    ),
    Part(
        "encoder",
        "sparse_objectness",
        "detrbench.models.encoders.sparse:by_objectness",
        "Sparse DETR, tokens ranked by a detection head in front of the encoder instead",
        _SPARSE,
    ),
    Part(
        "encoder",
        "sparse_random",
        "detrbench.models.encoders.sparse:by_chance",
        "Sparse DETR, tokens drawn at random instead",
        _SPARSE,
    ),
    Part(
        "encoder",
        "focus",
        "detrbench.models.encoders.focus:FocusEncoder",
        "Focus-DETR: foreground tokens, fewer from layer to layer, and dense attention among the best",
        _FOCUS,
        relations=_FOCUS_FITS,
    ),
    Part(
        "encoder",
        "salience",
        "detrbench.models.encoders.salience:SalienceEncoder",
        "Salience-DETR: salient tokens of each level, fewer from layer to layer, and levels fused behind the layers",
        _SALIENCE,
        relations=_SALIENCE_FITS,
    ),
    Part(
        "encoder",
        "lite",
        "detrbench.models.encoders.lite:LiteEncoder",
        "Lite DETR: coarse levels are updated often, fine ones once a block",
        _LITE,
        relations=_LITE_FITS,
        memory_levels=lambda given: given["num_levels"] if given["low_updates"] else given["high_levels"],
    ),
    Part(
        "encoder",
        "hybrid",
        "detrbench.models.encoders.hybrid:HybridEncoder",
        "RT-DETR: dense attention on the coarsest level, convolutions across the levels",
        {
            "encoder_dim": Option(
                None,
                "width of neck and encoder, where it is not that of the decoder (384 with ResNet-101)",
                Maybe(Whole(4)),
            ),
            "encoder_ffn_dim": Option(1024, "hidden width of the feed-forward network on the coarsest level", Whole(1)),
            "attention_layers": Option(1, "on the coarsest level, whatever num_encoder_layers says", Whole(1)),
            "fusion_blocks": Option(3, "convolution blocks where two levels are fused", Whole(1)),
            "fusion_expansion": Option(
                1.0, "their width beside the encoder's (0.5 in the smaller models)", Real(above=0)
            ),
        },
        relations=(
            Relation(
                "encoder_dim",
                lambda given: (
                    given["encoder_dim"] is None or given["encoder_dim"] % math.lcm(32, given["num_heads"]) == 0
                ),
                lambda given: f"a multiple of 32 (groups of a neck's norm) and of num_heads, {given['num_heads']}",
            ),
        ),
        token_width=lambda given: given["encoder_dim"] or given["hidden_dim"],
    ),
)

# What queries hand to the decoder: an embedding of each query's place that holds for all layers, or a box it starts at.
POSITIONS, BOXES = frozenset({"query positions"}), frozenset({"query boxes"})
# What decoders hand to the part that reads their queries between the attentions of a layer.
INNER = frozenset({"inner queries"})
_BOXES_OF = {
    "boxes_of": Option(
        "all",
        "proposal boxes of 'all' tokens in training, of all 'always' (as DINO and RT-DETR are written), or of those "
        "'selected' alone (Lite DETR); what comes out is the same",
        OneOf("all", "always", "selected"),
    )
}

_APART = {
    "redundancy_removal": Option(
        False, "of tokens side by side on a level only the best is chosen, while others are left (Salience-DETR)"
    )
}
QUERIES = (
    Part(
        "queries",
        "learnable",
        "detrbench.models.queries:LearnableQueries",
        "learned position and content",
        gives=POSITIONS,
    ),
    Part(
        "queries",
        "encoder",
        "detrbench.models.queries:EncoderQueries",
        "two-stage: position and content from the best encoder tokens ('priori')",
        {
            "ranking": Option(
                "first_class",
                "rank tokens by the 'first_class' logit, trained as objectness with every label set to 0 (Deformable "
                "DETR), or by the best, 'max_class' (Efficient DETR)",
                OneOf("first_class", "max_class"),
            ),
            "content": Option(
                "projected",
                "content 'projected' from the box's sine embedding, as the position is, or the token's own 'memory'",
                OneOf("projected", "memory"),
            ),
            "mixed_selection": Option(False, "content is learned, by rank, instead (DINO, section 3.4; H-DETR)"),
            "proposals_matched_by": Option(
                "prediction",
                "in training, objects are matched to each token's 'prediction', or to the 'anchor' that its box is "
                "predicted from, whatever its class (MS-DETR)",
                OneOf("prediction", "anchor"),
            ),
            **_APART,
        },
        gives=POSITIONS | BOXES,
    ),
    Part(
        "queries",
        "anchors",
        "detrbench.models.queries:AnchorQueries",
        "DN-Deformable-DETR: learned boxes and contents",
        gives=BOXES,
    ),
    Part(
        "queries",
        "mixed",
        "detrbench.models.queries:MixedQueries",
        "DINO: boxes from the best encoder tokens, learned content",
        {**_BOXES_OF, **_APART},
        gives=BOXES,
    ),
    Part(
        "queries",
        "tokens",
        "detrbench.models.queries:TokenQueries",
        "RT-DETR: boxes and contents from the best encoder tokens",
        {**_BOXES_OF, **_APART},
        gives=BOXES,
    ),
)

_LOOK_TWICE = "a layer's box loss also trains the boxes of the layer before (DINO, section 3.5)"
_ORDER = {
    "self_attention_first": Option(
        True, "queries see each other before they sample the memory; otherwise behind (MS-DETR)"
    )
}
DECODERS = (
    Part(
        "decoder",
        "deformable",
        "detrbench.models.decoders.deformable:DeformableDecoder",
        "Deformable DETR: self-attention, then sampled cross-attention",
        {
            "refine_boxes": Option(False, "each layer corrects the boxes of the one before"),
            "look_forward_twice": Option(False, _LOOK_TWICE),
            **_ORDER,
        },
        needs=POSITIONS,
        gives=INNER,
    ),
    Part(
        "decoder",
        "dab",
        "detrbench.models.decoders.dab:DabDecoder",
        "DN-Deformable-DETR: query positions from the boxes of each layer, scaled by the content",
        _ORDER,
        needs=BOXES,
        gives=INNER,
    ),
    Part(
        "decoder",
        "dino",
        "detrbench.models.decoders.dino:DinoDecoder",
        "DINO: query positions from the boxes of each layer, look forward twice",
        {"look_forward_twice": Option(True, _LOOK_TWICE), **_ORDER},
        needs=BOXES,
        gives=INNER,
    ),
    Part(
        "decoder",
        "rt_detr",
        "detrbench.models.decoders.rt_detr:RtDetrDecoder",
        "RT-DETR: query positions from the four numbers of each layer's boxes, look forward twice",
        {
            "look_forward_twice": Option(True, _LOOK_TWICE),
            "level_points": Option(
                None,
                "sampling points of a head on each level, fine to coarse, where not num_points on all (RT-DETRv2)",
                Maybe(ListOf(Whole(1))),
            ),
            "sampling": Option(
                "bilinear",
                "'bilinear', or 'nearest': one cell a point, offsets as they are (RT-DETRv2's discrete sampling)",
                OneOf("bilinear", "nearest"),
            ),
            **_ORDER,
        },
        needs=BOXES,
        gives=INNER,
        relations=(
            _one_for_each("level_points", "numbers", "num_levels", "level"),
            *(
                Relation(
                    name,
                    lambda given, name=name, usual=usual: given[name] == usual or not given["key_aware"],  # type: ignore[misc]
                    lambda given, usual=usual: f"{usual!r} where attention is key-aware",  # type: ignore[misc]
                )
                for name, usual in (("level_points", None), ("sampling", "bilinear"))
            ),
        ),
    ),
)

HEADS = (
    Part(
        "heads",
        "linear_mlp",
        "detrbench.models.heads:DetectionHeads",
        "a linear class head and a three-layer box head for each decoder layer",
        {"shared_heads": Option(False, "one pair of heads for all decoder layers")},
    ),
)

_ENOUGH_QUERIES = (
    Relation(
        "one_to_many_queries",
        lambda given: given["one_to_many_queries"] >= given["one_to_many_repeats"],
        lambda given: f"one_to_many_repeats, {given['one_to_many_repeats']}, or more",
    ),
)
ONE_TO_MANY = (
    Part("one_to_many", "none", "detrbench.models.one_to_many:NoOneToMany", "each object has one query"),
    Part(
        "one_to_many",
        "hybrid",
        "detrbench.models.one_to_many:HybridQueries",
        "H-DETR: further queries, of which several answer for each object",
        {
            "one_to_many_queries": Option(1500, "further queries, behind the ordinary ones", Whole(1)),
            "one_to_many_repeats": Option(6, "queries for each object", Whole(1)),
            "one_to_many_weight": Option(1.0, "weight of their losses beside the others'", Real(0)),
        },
        relations=_ENOUGH_QUERIES,
    ),
)

DENOISING = (
    Part("denoising", "none", "detrbench.models.denoising:NoDenoising", "no denoising"),
    Part(
        "denoising",
        "dn",
        "detrbench.models.denoising:PlainDenoising",
        "DN-DETR: noised objects to be restored",
        {
            "denoising_groups": Option(5, "noised copies of all objects", Whole(1)),
            "label_noise": Option(0.2, "share of labels that are replaced at random", Real(0, 1)),
            "box_noise": Option(
                0.4,
                "centres move by up to this share of half the side, sides grow or shrink by up to this share",
                Real(0, 1),
            ),
        },
        needs=BOXES,
    ),
    Part(
        "denoising",
        "cdn",
        "detrbench.models.denoising:ContrastiveDenoising",
        "DINO: noised objects to be restored, and noisier ones to be rejected (CDN)",
        {
            "denoising_queries": Option(
                100,
                "noised positives an image, shared out over groups of all its objects, one group at least",
                Whole(1),
            ),
            "label_noise": Option(0.5, "twice the share of labels that are replaced at random", Real(0, 2)),
            "box_noise": Option(
                1.0, "corners move by up to this share of half the side, a negative's by once to twice that", Real(0, 1)
            ),
            "no_object_row": Option(True, "one label embedding more than classes, never trained (DINO's own code)"),
        },
        needs=BOXES,
    ),
)

_SEVERAL = {
    "one_to_many_threshold": Option(
        0.4, "least matching score of a query that answers for an object beside the best one", Real(0, 1)
    ),
    "one_to_many_top": Option(6, "most queries that answer for one object", Whole(1)),
}
AUXILIARY_DECODERS = (
    Part(
        "auxiliary_decoder",
        "none",
        "detrbench.models.collaborative:NoAuxiliaryDecoder",
        "the decoder runs once",
    ),
    Part(
        "auxiliary_decoder",
        "collaborative",
        "detrbench.models.collaborative:CollaborativeDecoder",
        "DAC-DETR: the decoder runs again without self-attention, several queries for each object",
        _SEVERAL,
    ),
    Part(
        "auxiliary_decoder",
        "mixed",
        "detrbench.models.mixed_supervision:MixedSupervision",
        "MS-DETR: each decoder layer predicts twice, the second time with several queries for each object",
        {
            **_SEVERAL,
            "one_to_many_class_weight": Option(2.0, "weight of their class losses", Real(0)),
            "second_prediction": Option(
                "inner_ffn",
                "reads the queries between the attentions ('inner'), through a feed-forward network ('inner_ffn'), or "
                "the layer's 'output' by class heads of its own",
                OneOf("inner", "inner_ffn", "output"),
            ),
        },
        needs=INNER,
    ),
)

for _part in (
    *BACKBONES,
    *NECKS,
    *ENCODERS,
    *QUERIES,
    *DECODERS,
    *HEADS,
    *ONE_TO_MANY,
    *DENOISING,
    *AUXILIARY_DECODERS,
):
    register_part(_part)
