"""Names of lyuwenyu/RT-DETR (rtdetr_pytorch, rtdetrv2_pytorch), and of the same detectors in transformers.

Both call the convolutions of the fusions alike. What follows from a configuration is left out: anchors, which of them
are candidates, and the shares of sampling points.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from detrbench.models.checkpoints.adapter import Adapter, Rule
from detrbench.models.checkpoints.original import HEAD, head

if TYPE_CHECKING:
    from detrbench.models.detector import Detector

_COUNTER = (r".*\.num_batches_tracked", None)
_PLACE = {"conv": "0", "norm": "1", "convolution": "0", "normalization": "1"}
_KIND = {"conv": "conv", "norm": "bn", "convolution": "conv", "normalization": "bn"}
_PATHS = {"fpn_blocks": "top_down", "pan_blocks": "bottom_up"}
_FUSION = {"conv1": "long", "conv2": "short", "conv3": "last"}
_BRANCH = {"conv1": "wide", "conv2": "narrow"}


def _stem_name(index: int, kind: str, rest: str) -> str:
    """Three convolutions with norms and ReLU between them; the last norm is the body's own."""
    if _KIND[kind] == "bn" and index == 2:
        return f"backbone.body.bn1.{rest}"
    return f"backbone.body.conv1.{3 * index + int(_PLACE[kind])}.{rest}"


def _stem(match: re.Match[str], detector: Detector) -> str:
    """Counted from 0."""
    return _stem_name(int(match["index"]), match["kind"], match["rest"])


def _official_stem(match: re.Match[str], detector: Detector) -> str:
    """Counted from 1."""
    return _stem_name(int(match["number"]) - 1, match["kind"], match["rest"])


def _block(match: re.Match[str], detector: Detector) -> str:
    """A convolution of a block, by its letter or number."""
    at = match["at"]
    number = "abc".index(at) if at in "abc" else int(at)
    stage, kind = int(match["stage"]) + 1, _KIND[match["kind"]]
    return f"backbone.body.layer{stage}.{match['block']}.{kind}{number + 1}.{match['rest']}"


def _shortcut(match: re.Match[str], detector: Detector) -> str:
    """It averages first in all stages but one."""
    stage = int(match["stage"])
    place = int(_PLACE[match["kind"]]) + (stage > 0)
    return f"backbone.body.layer{stage + 1}.{match['block']}.downsample.{place}.{match['rest']}"


def _fusion(match: re.Match[str], detector: Detector) -> str:
    return f"encoder.{_PATHS[match[1]]}.{match[2]}.{_FUSION[match[3]]}.{_PLACE[match[4]]}.{match[5]}"


def _branch(match: re.Match[str], detector: Detector) -> str:
    place = f"{_BRANCH[match[4]]}.{_PLACE[match[5]]}"
    return f"encoder.{_PATHS[match[1]]}.{match[2]}.blocks.{match[3]}.{place}.{match[6]}"


def _across_levels(prefix: str) -> tuple[Rule, ...]:
    """Of the convolutions that fuse levels; `prefix` is a regular expression without groups."""
    paths = r"(fpn_blocks|pan_blocks)\.(\d+)\."
    return (
        (prefix + r"lateral_convs\.(\d+)\.conv\.(.+)", r"encoder.lateral.\1.0.\2"),
        (prefix + r"lateral_convs\.(\d+)\.norm\.(.+)", r"encoder.lateral.\1.1.\2"),
        (prefix + r"downsample_convs\.(\d+)\.conv\.(.+)", r"encoder.downsample.\1.0.\2"),
        (prefix + r"downsample_convs\.(\d+)\.norm\.(.+)", r"encoder.downsample.\1.1.\2"),
        (prefix + paths + r"(conv[123])\.(conv|norm)\.(.+)", _fusion),
        (prefix + paths + r"bottlenecks\.(\d+)\.(conv[12])\.(conv|norm)\.(.+)", _branch),
    )


def resnet_d_rules(prefix: str) -> tuple[Rule, ...]:
    """Of the official ResNet-D, whose names begin with `prefix`, a regular expression; nothing in its own file."""
    block = prefix + r"res_layers\.(?P<stage>\d)\.blocks\.(?P<block>\d+)\."
    return (
        (prefix + r"conv1\.conv1_(?P<number>\d)\.(?P<kind>conv|norm)\.(?P<rest>.+)", _official_stem),
        (block + r"branch2(?P<at>[abc])\.(?P<kind>conv|norm)\.(?P<rest>.+)", _block),
        (block + r"short\.(?:conv\.)?(?P<kind>conv|norm)\.(?P<rest>[a-z_]+)", _shortcut),
    )


_ATTENTION = r"encoder\.encoder\.0\.layers\.(\d+)\."
_DECODER = r"decoder\.decoder\.layers\.(\d+)\."
OFFICIAL = Adapter(
    name="RT-DETR",
    marker=r"decoder\.query_pos_head\.",
    rules=(
        _COUNTER,
        (r"decoder\.(?:anchors|valid_mask)", None),
        (_DECODER + r"cross_attn\.num_points_scale", None),
        *resnet_d_rules(r"backbone\."),
        (r"encoder\.input_proj\.(\d+)\.(?:0|conv)\.(.+)", r"neck.projections.\1.0.\2"),
        (r"encoder\.input_proj\.(\d+)\.(?:1|norm)\.(.+)", r"neck.projections.\1.1.\2"),
        (_ATTENTION + r"self_attn\.(.+)", r"encoder.attention.\1.self_attention.\2"),
        (_ATTENTION + r"norm1\.(.+)", r"encoder.attention.\1.self_attention_norm.\2"),
        (_ATTENTION + r"(linear[12]\..+)", r"encoder.attention.\1.feed_forward.\2"),
        (_ATTENTION + r"norm2\.(.+)", r"encoder.attention.\1.feed_forward.norm.\2"),
        *_across_levels(r"encoder\."),
        (r"decoder\.input_proj\.(\d+)\.conv\.(.+)", r"encoder.output.\1.0.\2"),
        (r"decoder\.input_proj\.(\d+)\.norm\.(.+)", r"encoder.output.\1.1.\2"),
        (_DECODER + r"self_attn\.(.+)", r"decoder.layers.\1.self_attention.\2"),
        (_DECODER + r"norm1\.(.+)", r"decoder.layers.\1.self_attention_norm.\2"),
        (_DECODER + r"cross_attn\.(.+)", r"decoder.layers.\1.cross_attention.\2"),
        (_DECODER + r"norm2\.(.+)", r"decoder.layers.\1.cross_attention_norm.\2"),
        (_DECODER + r"(linear[12]\..+)", r"decoder.layers.\1.feed_forward.\2"),
        (_DECODER + r"norm3\.(.+)", r"decoder.layers.\1.feed_forward.norm.\2"),
        (r"decoder\.denoising_class_embed\.(.+)", r"denoising.label_embedding.\1"),
        (r"decoder\.query_pos_head\.(.+)", r"decoder.box_position.\1"),
        (r"decoder\.enc_output\.(?:0|proj)\.(.+)", r"proposal_head.projection.\1"),
        (r"decoder\.enc_output\.(?:1|norm)\.(.+)", r"proposal_head.norm.\1"),
        (r"decoder\.enc_score_head\.(.+)", r"proposal_head.class_embed.\1"),
        (r"decoder\.enc_bbox_head\.(.+)", r"proposal_head.box_embed.\1"),
        (r"decoder\.dec_score_head\.(.+)", r"heads.class_embed.\1"),
        (r"decoder\.dec_bbox_head\.(.+)", r"heads.box_embed.\1"),
    ),
)


def _layer(theirs: str, ours: str) -> tuple[Rule, ...]:
    """Of a layer of encoder or decoder in transformers, whose files and memory name some things differently."""
    attention = theirs + r"self_attn\."
    return (
        *((rf"{attention}{name}_proj\.(.+)", rf"{ours}self_attention.in_proj_\2[{i}]") for i, name in enumerate("qkv")),
        (attention + r"(?:o|out)_proj\.(.+)", ours + r"self_attention.out_proj.\2"),
        (theirs + r"self_attn_layer_norm\.(.+)", ours + r"self_attention_norm.\2"),
        (theirs + r"(?:mlp\.)?fc([12])\.(.+)", ours + r"feed_forward.linear\2.\3"),
        (theirs + r"final_layer_norm\.(.+)", ours + r"feed_forward.norm.\2"),
    )


_BACKBONE = r"model\.backbone\.model\."
_STAGE = _BACKBONE + r"encoder\.stages\.(?P<stage>\d)\.layers\.(?P<block>\d+)\."
_CONVOLUTION = r"(?P<kind>convolution|normalization)\.(?P<rest>.+)"
_LAYER = r"model\.decoder\.layers\.(\d+)\."
TRANSFORMERS = Adapter(
    name="transformers, RT-DETR",
    marker=r"model\.decoder_input_proj\.",
    rules=(
        _COUNTER,
        (_LAYER + r"encoder_attn\.n_points_scale", None),
        (_BACKBONE + r"embedder\.embedder\.(?P<index>\d)\." + _CONVOLUTION, _stem),
        (_STAGE + r"layer\.(?P<at>\d)\." + _CONVOLUTION, _block),
        (_STAGE + r"shortcut\.(?:1\.)?" + _CONVOLUTION, _shortcut),
        (r"model\.encoder_input_proj\.(.+)", r"neck.projections.\1"),
        *_layer(r"model\.encoder\.(?:aifi|encoder)\.0\.layers\.(\d+)\.", r"encoder.attention.\1."),
        *_across_levels(r"model\.encoder\."),
        (r"model\.decoder_input_proj\.(.+)", r"encoder.output.\1"),
        *_layer(_LAYER, r"decoder.layers.\1."),
        (_LAYER + r"encoder_attn\.(.+)", r"decoder.layers.\1.cross_attention.\2"),
        (_LAYER + r"encoder_attn_layer_norm\.(.+)", r"decoder.layers.\1.cross_attention_norm.\2"),
        (r"model\.denoising_class_embed\.(.+)", r"denoising.label_embedding.\1"),
        (r"model\.decoder\.query_pos_head\.(.+)", r"decoder.box_position.\1"),
        (r"model\.enc_output\.0\.(.+)", r"proposal_head.projection.\1"),
        (r"model\.enc_output\.1\.(.+)", r"proposal_head.norm.\1"),
        (r"model\.enc_score_head\.(.+)", r"proposal_head.class_embed.\1"),
        (r"model\.enc_bbox_head\.(.+)", r"proposal_head.box_embed.\1"),
        (r"(?:model\.decoder\.)?" + HEAD, head),
    ),
)
