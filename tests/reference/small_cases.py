"""Small detectors for the small references: one for each family, training part and notable option.

Every value is set so that a mistake would move a figure: no parameter is zero or one, objects touch token centres and
the bounds of scale intervals, images differ in width and height, and one has no objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from detrbench import models
from detrbench.models.detector import Detector
from reference.seeded import seeded_batch, seeded_tensor

Target = dict[str, Tensor]

SMALL: Mapping[str, Any] = {
    # 64 channels, so that each of the neck's 32 groups has more than one.
    **{"hidden_dim": 64, "num_heads": 4, "num_points": 2, "ffn_dim": 48, "dropout": 0.0, "width": 8},
    **{"num_encoder_layers": 2, "num_decoder_layers": 2, "num_queries": 24, "num_classes": 7},
}
# Height, width and seed. Padded to 128 x 128, so a grid has 256, 64, 16 and 4 tokens.
IMAGES = ((96, 128, 0), (128, 80, 1), (112, 104, 2))
# Levels of 56 and 48 cells in a row: the first cell's centre lies on either side of the proposals' margin.
WIDE = ((32, 448, 3), (24, 384, 4))
# Pixels x1, y1, x2, y2 and the class. On the first image token centres (4, 12, ... of the finest level, 8, 24, ... of
# the next) lie on edges and at distances of exactly 16 from them; two objects overlap; one is tiny, one at the border.
OBJECTS: tuple[Sequence[tuple[float, float, float, float, int]], ...] = (
    (
        (4, 4, 28, 28, 1),
        (0, 0, 24, 24, 5),
        (16, 8, 112, 88, 2),
        (100, 60, 128, 96, 2),
        (50, 40, 53, 44, 0),
        (80, 12, 104, 36, 6),
    ),
    ((8, 12, 72, 116, 3), (20, 12, 52, 60, 6)),
    (),
)
FOCUS: Mapping[str, Any] = {
    "keep_ratios": [0.5, 0.3],
    "scale_intervals": [[-1, 16], [16, 32], [32, 64], [64, 999]],
    "fine_tokens": 20,
}
SALIENCE: Mapping[str, Any] = {
    "layer_ratios": [1.0, 0.5],
    "scale_intervals": [[-1, 16], [16, 32], [32, 64], [64, 999]],
    "fine_tokens": 20,
    "background_cells": 16,
}
H_DETR: Mapping[str, Any] = {"one_to_many_queries": 15, "one_to_many_repeats": 3, "one_to_many_weight": 0.5}
LITE: Mapping[str, Any] = {"high_updates": 2, "blocks": 2}
CDN: Mapping[str, Any] = {"denoising_queries": 13}  # two groups of six


@dataclass(frozen=True)
class Case:
    """One small detector and its images.

    Attributes:
        create: arguments of `models.create` beside `SMALL`.
        images: height, width and seed of each.
        objects: see `OBJECTS`.
        random: of the noise: "drawn" from a seeded generator, or "pattern", a formula of the index.
    """

    create: Mapping[str, Any]
    images: Sequence[Sequence[int]] = IMAGES
    objects: Sequence[Sequence[tuple[float, float, float, float, int]]] = field(default=OBJECTS)
    random: str = "drawn"

    def detector(self) -> Detector:
        """In float64 and eval mode, each parameter made from its name."""
        detector = models.create(**{**SMALL, **self.create}).double().eval()
        detector.load_state_dict({name: small_tensor(name, t.shape) for name, t in detector.state_dict().items()})
        return detector

    def batch(self) -> tuple[Tensor, Tensor, list[Target]]:
        """Images, masks and targets."""
        images, masks = seeded_batch(self.images)
        return images, masks, [targets_of(size, some) for size, some in zip(self.images, self.objects)]


def small_tensor(name: str, shape: Sequence[int]) -> Tensor:
    """As for official weights, but boxes stay near their reference and grow, and modulation turns some tokens round."""
    value = seeded_tensor(name, shape)
    if "box_embed" in name:
        value = value * 0.6
        if tuple(shape) == (4,):
            value = value + torch.tensor([0.0, 0.0, 1.1, 0.9])
    if name.endswith("alpha"):
        value = value * 40
    return value


def targets_of(size: Sequence[int], objects: Sequence[tuple[float, float, float, float, int]]) -> Target:
    """Labels (n,) and boxes (n, 4) cx, cy, w, h in [0, 1]."""
    boxes = torch.tensor([row[:4] for row in objects], dtype=torch.float64).reshape(-1, 4)
    low, high = boxes.split(2, -1)
    extent = torch.tensor([size[1], size[0]], dtype=torch.float64)
    labels = torch.tensor([row[4] for row in objects], dtype=torch.long)
    return {"labels": labels, "boxes": torch.cat([(low + high) / 2 / extent, (high - low) / extent], -1)}


def _case(name: str, **options: Any) -> Case:
    return Case({"name": f"{name}_tiny", **options})


WIDE_OBJECTS = (((10, 4, 60, 28, 1), (200, 2, 440, 30, 4)), ((100, 6, 180, 20, 2),))
MANY = [[x, y, x + 60 + 5 * i, y + 50, i % 7] for i, (x, y) in enumerate(((8, 8), (30, 20), (40, 40), (60, 30)))]

CASES: Mapping[str, Case] = {
    "deformable_detr": _case("deformable_detr"),
    "deformable_detr_refine": _case("deformable_detr_refine", source="detrex", num_classes=7),
    "deformable_detr_two_stage": _case("deformable_detr_two_stage"),
    "deformable_detr_two_stage_wide": Case(
        {"name": "deformable_detr_two_stage_tiny"}, images=WIDE, objects=WIDE_OBJECTS
    ),
    "deformable_detr_pp": _case("deformable_detr_pp", ffn_dim=48),
    "efficient_detr": _case("efficient_detr"),
    # 0.35 of the first image's 340 tokens is 119 in float32 and a hair less in float64.
    "sparse_detr": Case({"name": "sparse_detr_tiny", "keep_ratio": 0.35}, images=((128, 128, 0), *IMAGES[1:])),
    "sparse_detr_dual_attention": _case("sparse_detr", keep_ratio=0.3, dual_attention=True, encoder_auxiliary=False),
    "sparse_detr_objectness": _case("sparse_detr", keep_ratio=0.3, encoder="sparse_objectness"),
    "sparse_detr_random": _case("sparse_detr", keep_ratio=0.3, encoder="sparse_random"),
    "sparse_deformable_detr": _case("sparse_deformable_detr"),
    "sparse_dn_deformable_detr": _case("sparse_dn_deformable_detr", num_classes=7),
    "sparse_dino": _case("sparse_dino", **CDN),
    "dn_deformable_detr": Case({"name": "dn_deformable_detr_tiny", "label_noise": 0.5}, random="pattern"),
    "dn_deformable_detr_drawn": _case("dn_deformable_detr", denoising_groups=3),
    "dino": _case("dino", **CDN),
    "dino_pattern": Case({"name": "dino_tiny", **CDN}, random="pattern"),
    "dino_detrex": _case("dino", source="detrex", num_classes=7, look_forward_twice=False, **CDN),
    "dino_5scale": _case("dino_5scale", **CDN),
    "dino_3scale": _case("dino_3scale", num_queries=15, **CDN),
    "dino_2scale": _case("dino_2scale", num_queries=10, **CDN),
    "lite_dino": _case("lite_dino", **LITE, **CDN),
    "lite_dino_plain_attention": _case("lite_dino", key_aware=False, high_levels=2, **LITE, **CDN),
    "lite_dino_high_only": _case("lite_dino", low_updates=False, **LITE, **CDN),
    "lite_deformable_detr": _case("lite_deformable_detr", **LITE),
    "lite_h_detr": _case("lite_h_detr", **LITE, **H_DETR),
    "focus_detr": _case("focus_detr", **FOCUS, **CDN),
    "focus_detr_bottom_up": _case("focus_detr", modulation="bottom_up", category_score=False, **FOCUS, **CDN),
    # 0.15 / 0.2 of the largest image's 52 tokens is 39 in float32 and a hair less in float64.
    "focus_detr_plain": _case(
        "focus_detr", modulation="none", dual_attention=False, **{**FOCUS, "keep_ratios": [0.2, 0.15]}, **CDN
    ),
    "focus_detr_unsupervised": _case("focus_detr", foreground_supervision=False, **FOCUS, **CDN),
    "focus_deformable_detr": _case("focus_deformable_detr", **FOCUS),
    "focus_efficient_detr": _case("focus_efficient_detr", **FOCUS),
    "focus_dn_deformable_detr": _case("focus_dn_deformable_detr", **FOCUS),
    "salience_detr": _case("salience_detr", **SALIENCE, **CDN),
    "salience_detr_plain": _case(
        "salience_detr",
        background_embedding=False,
        token_fusion=False,
        redundancy_removal=False,
        class_loss="focal",
        **SALIENCE,
        **CDN,
    ),
    "salience_dac_detr": _case("dac_detr", encoder="salience", redundancy_removal=True, **SALIENCE, **CDN),
    "h_detr": _case("h_detr", **H_DETR),
    "h_detr_no_tricks": _case("h_detr", mixed_selection=False, look_forward_twice=False, **H_DETR),
    "ms_detr": Case(
        {"name": "ms_detr_tiny", "ffn_dim": 48, "one_to_many_threshold": 0.3}, objects=(MANY, MANY[:2], ())
    ),
    "ms_deformable_detr": _case("ms_deformable_detr", ffn_dim=48, second_prediction="inner", denoising="cdn", **CDN),
    "ms_detr_output": _case(
        "ms_detr", ffn_dim=48, self_attention_first=True, second_prediction="output", one_to_many_class_weight=0.7
    ),
    "dac_detr": _case("dac_detr", **CDN),
    "dac_detr_focal": _case("dac_detr", class_loss="focal", denoising="none"),
    # So many queries are good enough that some are left out by lot.
    "dac_detr_many": Case(
        {
            **{"name": "dac_detr_tiny", "num_queries": 200, "denoising": "none"},
            **{"one_to_many_threshold": 0.2, "one_to_many_top": 60},
        },
        objects=(MANY, MANY[:2], ()),
    ),
    "rt_detr": _case("rt_detr", **CDN),
    "rt_detr_focal": _case("rt_detr", class_loss="focal", look_forward_twice=False, denoising="none"),
    "rt_detr_v2": _case("rt_detr_v2", level_points=[3, 1, 2], fusion_blocks=1, fusion_expansion=0.5, **CDN),
    "rt_detr_v2_nearest": _case("rt_detr_v2", sampling="nearest", num_queries=15, **CDN),
    # Four levels of another width than the memory, and positions of another neck.
    "hybrid_dino": _case("dino", encoder="hybrid", encoder_dim=32, encoder_ffn_dim=40, attention_layers=2, **CDN),
    "tokens_dino": _case("dino", queries="tokens", **CDN),
}
