"""The parts that a detector is made of, by kind and name, with the options each one takes. Imports no torch.

A detector is one choice for each kind:

    backbone -> neck -> encoder -> queries -> decoder -> heads      (always)
    one_to_many, denoising, auxiliary_decoder                       (training only)

A part's `factory` is imported only when a detector is built, so that listing parts stays instant. `register` adds a
user's own part under the same rules.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from detrbench.errors import UsageError, unknown_name

KINDS = ("backbone", "neck", "encoder", "queries", "decoder", "heads")
# Kinds that only training runs, with the choice that holds where a variant names none.
TRAINING_KINDS = {"one_to_many": "none", "denoising": "none", "auxiliary_decoder": "none"}
ALL_KINDS = (*KINDS, *TRAINING_KINDS)


@dataclass(frozen=True)
class Option:
    """One setting of a part: its default and what it means."""

    default: Any
    doc: str


@dataclass(frozen=True)
class Part:
    """One choice for one place in a detector.

    Args:
        kind: one of `ALL_KINDS`.
        name: how suites and `models.create` call it.
        factory: "package.module:Class"; called as `Class(dimensions, **options)`.
        summary: one line for `detrbench list parts`.
        options: what it takes beside the detector's common dimensions.
        gives: what other parts can build on, beyond what its kind always gives.
        needs: what some other part of the detector must give, or the combination is refused.
    """

    kind: str
    name: str
    factory: str | Callable[..., Any]
    summary: str
    options: Mapping[str, Option] = field(default_factory=dict)
    gives: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()

    def load(self) -> Callable[..., Any]:
        """The class behind `factory`, imported now."""
        if callable(self.factory):
            return self.factory
        module, _, attribute = self.factory.partition(":")
        return getattr(importlib.import_module(module), attribute)


# What every part may read: passed to each factory as `Dimensions`.
COMMON: dict[str, Option] = {
    "hidden_dim": Option(256, "width of a token"),
    "num_heads": Option(8, "attention heads"),
    "num_levels": Option(4, "feature levels, stride 8 upward"),
    "num_points": Option(4, "sampling points of a head on each level"),
    "ffn_dim": Option(1024, "hidden width of the feed-forward networks"),
    "dropout": Option(0.1, "dropout rate while training"),
    "num_encoder_layers": Option(6, "encoder layers"),
    "num_decoder_layers": Option(6, "decoder layers"),
    "num_queries": Option(300, "object queries"),
    "num_classes": Option(91, "class logits; 91 = COCO category ids, as the original repositories"),
    "key_aware": Option(False, "sampled attention weighs points by query times key (Lite DETR)"),
    "logit_eps": Option(1e-5, "clamp of the inverse sigmoid (1e-3 in detrex, DINO and Lite DETR)"),
}

# What the training objective reads.
CRITERION: dict[str, Option] = {
    "class_weight": Option(2.0, "weight of the class loss beside 5 for L1 and 2 for GIoU (1 in DINO and its heirs)"),
    "proposal_class_weight": Option(None, "the same for the encoder's proposals, where it differs (2 in DAC-DETR)"),
    "class_loss": Option("focal", "'focal', or 'iou_aware': scores learn the quality of boxes (Align-DETR, DAC-DETR)"),
    "iou_eps": Option(0.0, "added to the areas that the GIoU loss divides by (1e-6 in detrex, DINO and Lite DETR)"),
}

_PARTS: dict[tuple[str, str], Part] = {}


def register_part(part: Part) -> None:
    """Add a part; a name that is taken is an error."""
    if part.kind not in ALL_KINDS:
        raise unknown_name("kind of part", part.kind, ALL_KINDS)
    if (part.kind, part.name) in _PARTS:
        raise UsageError(f"{part.kind} {part.name!r} is registered already")
    _PARTS[part.kind, part.name] = part


def get_part(kind: str, name: str) -> Part:
    """The part of that kind and name; unknown names raise `UsageError` with the nearest match."""
    if (kind, name) not in _PARTS:
        raise unknown_name(kind, name, part_names(kind))
    return _PARTS[kind, name]


def part_names(kind: str) -> list[str]:
    """Sorted names of one kind."""
    return sorted(name for part_kind, name in _PARTS if part_kind == kind)


def all_parts() -> list[Part]:
    """Every part, in the order a detector runs them."""
    return sorted(_PARTS.values(), key=lambda part: (ALL_KINDS.index(part.kind), part.name))


_FINEST = {"finest_stride": Option(8, "stride of the finest level handed to the neck: 4, 8, 16 or 32")}
_RESNET = {**_FINEST, "frozen_stages": Option(2, "stages without gradient, the stem counted as the first")}


def _swin(window_size: int) -> dict[str, Option]:
    return {
        **_FINEST,
        "window_size": Option(window_size, "side of an attention window in cells (7, or 12 after ImageNet at 384)"),
        "drop_path": Option(0.2, "rate at which the last block is skipped while training"),
        # Not ResNet's `frozen_stages`: a code base that freezes a ResNet's stem (detrex) may freeze nothing here.
        "swin_frozen_stages": Option(2, "stages without gradient, the patch embedding counted as the first"),
    }


_SPARSE = {
    "keep_ratio": Option(0.3, "share of an image's tokens that the encoder updates"),
    "encoder_auxiliary": Option(True, "predict and supervise boxes after each layer but the last"),
    "dual_attention": Option(False, "dense attention among the best tokens too (Focus-DETR's Table 11)"),
}
_REFINE = {"refine_boxes": Option(False, "each layer corrects the boxes of the one before")}
_LOOK_TWICE = "a layer's box loss also trains the boxes of the layer before (DINO)"
# What queries hand to the decoder: an embedding of each query's place that holds for all layers, or a box it starts at.
POSITIONS, BOXES = frozenset({"query positions"}), frozenset({"query boxes"})

for _part in (
    Part(
        "backbone",
        "resnet50",
        "detrbench.models.backbones.resnet:resnet50",
        "ResNet-50, frozen batch norm (torchvision)",
        _RESNET,
    ),
    Part(
        "backbone",
        "resnet101",
        "detrbench.models.backbones.resnet:resnet101",
        "ResNet-101, frozen batch norm (torchvision)",
        _RESNET,
    ),
    Part(
        "backbone",
        "swin_tiny",
        "detrbench.models.backbones.swin:swin_tiny",
        "Swin-T (torchvision's blocks)",
        _swin(7),
    ),
    Part(
        "backbone",
        "swin_base",
        "detrbench.models.backbones.swin:swin_base",
        "Swin-B as trained on ImageNet-22k at 224 pixels",
        _swin(7),
    ),
    Part(
        "backbone",
        "swin_base_384",
        "detrbench.models.backbones.swin:swin_base",
        "Swin-B as trained on ImageNet-22k at 384 pixels",
        _swin(12),
    ),
    Part(
        "backbone",
        "swin_large",
        "detrbench.models.backbones.swin:swin_large",
        "Swin-L as trained on ImageNet-22k at 384 pixels (224: window_size=7)",
        _swin(12),
    ),
    Part(
        "backbone",
        "tiny",
        "detrbench.models.backbones.tiny:Tiny",
        "a small convolutional network for runs on a CPU",
        {**_FINEST, "width": Option(32, "channels at stride 4; doubled at each later stage")},
    ),
    Part(
        "neck",
        "projection",
        "detrbench.models.neck:ProjectionNeck",
        "1x1 convolutions, one more strided level, sine positions",
        {
            "position_temperature": Option(10000, "of the sine embedding (20 in DINO)"),
            "position_offset": Option(-0.5, "added to the cell count before scaling (0 in DINO)"),
        },
    ),
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
        "focus",
        "detrbench.models.encoders.focus:FocusEncoder",
        "Focus-DETR: foreground tokens, fewer from layer to layer, and dense attention among the best",
        {
            "keep_ratios": Option([0.5, 0.4, 0.3, 0.3, 0.2, 0.1], "share of the tokens that each layer updates"),
            "modulation": Option("top_down", "scores of a level modulate the next: 'top_down', 'bottom_up', 'none'"),
            "foreground_supervision": Option(True, "train the scores with the objects' boxes"),
            "scale_intervals": Option(
                [[-1, 64], [64, 128], [128, 256], [256, 999999]],
                "box sizes of each level, in pixels to the farthest side; the paper's best overlap: "
                "[-1, 64], [64, 256], [128, 512], [256, 999999]",
            ),
            "dual_attention": Option(True, "dense attention among the best tokens"),
            "fine_tokens": Option(300, "tokens of the dual attention"),
            "category_score": Option(True, "class logits help to choose those tokens"),
        },
    ),
    Part(
        "encoder",
        "lite",
        "detrbench.models.encoders.lite:LiteEncoder",
        "Lite DETR: coarse levels are updated often, fine ones once a block",
        {
            "high_levels": Option(3, "coarse levels that every layer updates: x of HxLy"),
            "high_updates": Option(2, "updates of the high levels in a block: A of (A+1)xB"),
            "blocks": Option(3, "B of (A+1)xB"),
            "low_updates": Option(True, "update the low levels once a block; else only look at them (Table 5)"),
        },
    ),
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
            "ranking": Option("first_class", "'first_class' logit (Deformable DETR) or 'max_class' (Efficient DETR)"),
            "content": Option("projected", "content 'projected' from the box or the token's 'memory'"),
            "mixed_selection": Option(False, "content is learned, by rank, instead (H-DETR)"),
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
        {"boxes_of": Option("all", "in training, proposal boxes of 'all' tokens (DINO) or of those 'selected' (Lite)")},
        gives=BOXES,
    ),
    Part(
        "decoder",
        "deformable",
        "detrbench.models.decoders.deformable:DeformableDecoder",
        "Deformable DETR: self-attention, then sampled cross-attention",
        {**_REFINE, "look_forward_twice": Option(False, _LOOK_TWICE)},
        needs=POSITIONS,
    ),
    Part(
        "decoder",
        "dab",
        "detrbench.models.decoders.dab:DabDecoder",
        "DN-Deformable-DETR: query positions from the boxes of each layer, scaled by the content",
        needs=BOXES,
    ),
    Part(
        "decoder",
        "dino",
        "detrbench.models.decoders.dino:DinoDecoder",
        "DINO: query positions from the boxes of each layer, look forward twice",
        {"look_forward_twice": Option(True, _LOOK_TWICE)},
        needs=BOXES,
    ),
    Part(
        "heads",
        "linear_mlp",
        "detrbench.models.heads:DetectionHeads",
        "a linear class head and a three-layer box head for each decoder layer",
        {"shared_heads": Option(False, "one pair of heads for all decoder layers")},
    ),
    Part("one_to_many", "none", "detrbench.models.one_to_many:NoOneToMany", "each object has one query"),
    Part(
        "one_to_many",
        "hybrid",
        "detrbench.models.one_to_many:HybridQueries",
        "H-DETR: further queries, of which several answer for each object",
        {
            "one_to_many_queries": Option(1500, "further queries"),
            "one_to_many_repeats": Option(6, "queries for each object"),
            "one_to_many_weight": Option(1.0, "weight of their losses beside the others'"),
        },
    ),
    Part("denoising", "none", "detrbench.models.denoising:NoDenoising", "no denoising"),
    Part(
        "denoising",
        "dn",
        "detrbench.models.denoising:PlainDenoising",
        "DN-DETR: noised objects to be restored",
        {
            "denoising_groups": Option(5, "noised copies of all objects"),
            "label_noise": Option(0.2, "share of labels that are replaced at random"),
            "box_noise": Option(0.4, "centre and sides change by up to this share of half the side, and of the side"),
        },
        needs=BOXES,
    ),
    Part(
        "denoising",
        "cdn",
        "detrbench.models.denoising:ContrastiveDenoising",
        "DINO: noised objects to be restored, and noisier ones to be rejected (CDN)",
        {
            "denoising_queries": Option(100, "noised positives an image, shared out over groups of all its objects"),
            "label_noise": Option(0.5, "twice the share of labels that are replaced at random"),
            "box_noise": Option(1.0, "corners move by up to this share of half the side"),
            "no_object_row": Option(True, "one label embedding more than classes, never trained (DINO's own code)"),
        },
        needs=BOXES,
    ),
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
        {
            "one_to_many_threshold": Option(0.4, "least matching score of a query that answers for an object"),
            "one_to_many_top": Option(6, "most queries that answer for one object"),
        },
    ),
):
    register_part(_part)
