"""Names of fundamentalvision/Deformable-DETR and of what was forked from it.

These are kakaobrain/sparse-detr, IDEA-Research/DINO, IDEA-Research/Lite-DETR, HDETR/H-Deformable-DETR,
huzhengdongcs/DAC-DETR and Atten4Vis/MS-DETR.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from detrbench.models.checkpoints.adapter import Adapter, Rule
from detrbench.models.checkpoints.swin import swin_rules

if TYPE_CHECKING:
    from detrbench.models.detector import Detector

_KINDS = {"class": "class_embed", "bbox": "box_embed"}


def head(match: re.Match[str], detector: Detector) -> str:
    """Heads lie in one list: decoder layers, then the proposal head, then the encoder's auxiliary heads."""
    kind, index, rest = _KINDS[match["kind"]], int(match["index"]), match["rest"]
    options = detector.spec.options
    layers = options["num_decoder_layers"]
    if index < layers:
        return f"heads.{kind}.{0 if options['shared_heads'] else index}.{rest}"
    if index == layers:
        return f"proposal_head.{kind}.{rest}"
    return f"encoder.auxiliary_heads.{index - layers - 1}.{kind}.{rest}"


def _encoder_head(match: re.Match[str], detector: Detector) -> str:
    return f"encoder.auxiliary_heads.{match['index']}.{_KINDS[match['kind']]}.{match['rest']}"


def _key_aware_only(match: re.Match[str], detector: Detector) -> str | None:
    """Lite DETR's files always hold this projection; without key-aware attention nothing reads it."""
    if not detector.spec.options["key_aware"]:
        return None
    attention = {"encoder": "attention", "decoder": "cross_attention"}[match[1]]
    return f"{match[1]}.layers.{match[2]}.{attention}.query_proj.{match[3]}"


HEAD = r"(?P<kind>class|bbox)_embed\.(?P<index>\d+)\.(?P<rest>.+)"
_ENCODER = r"transformer\.encoder\.layers\.(\d+)\."
_DECODER = r"transformer\.decoder\.layers\.(\d+)\."
# What the forks of this code still call as it does: attention, networks and norms of both transformers.
LAYERS: tuple[Rule, ...] = (
    (_ENCODER + r"self_attn\.(.+)", r"encoder.layers.\1.attention.\2"),
    (_ENCODER + r"norm1\.(.+)", r"encoder.layers.\1.attention_norm.\2"),
    (_ENCODER + r"(linear[12]\..+)", r"encoder.layers.\1.feed_forward.\2"),
    (_ENCODER + r"norm2\.(.+)", r"encoder.layers.\1.feed_forward.norm.\2"),
    (_DECODER + r"cross_attn\.(.+)", r"decoder.layers.\1.cross_attention.\2"),
    (_DECODER + r"norm1\.(.+)", r"decoder.layers.\1.cross_attention_norm.\2"),
    (_DECODER + r"self_attn\.(.+)", r"decoder.layers.\1.self_attention.\2"),
    (_DECODER + r"norm2\.(.+)", r"decoder.layers.\1.self_attention_norm.\2"),
    (_DECODER + r"(linear[12]\..+)", r"decoder.layers.\1.feed_forward.\2"),
    (_DECODER + r"norm3\.(.+)", r"decoder.layers.\1.feed_forward.norm.\2"),
    (r"transformer\.decoder\.norm\.(.+)", r"decoder.norm.\1"),
    (r"transformer\.decoder\.ref_point_head\.(.+)", r"decoder.box_position.network.\1"),
    (r"transformer\.enc_output\.(.+)", r"proposal_head.projection.\1"),
    (r"transformer\.enc_output_norm\.(.+)", r"proposal_head.norm.\1"),
)

ADAPTER = Adapter(
    name="Deformable-DETR",
    marker=r"transformer\.level_embed$",
    rules=(
        (r".*\.num_batches_tracked", None),
        *swin_rules(r"backbone\.0\.(?:body\.)?"),
        (r"backbone\.0\.body\.(.+)", r"backbone.body.\1"),
        (r"input_proj\.(.+)", r"neck.projections.\1"),
        (r"transformer\.level_embed", r"neck.level_embed"),
        (r"transformer\.(encoder|decoder)\.layers\.(\d+)\.\w+\.query_proj\.(.+)", _key_aware_only),
        *LAYERS,
        (_ENCODER + r"linear([12])2\.(.+)", r"encoder.layers.\1.low_feed_forward.linear\2.\3"),
        (_ENCODER + r"norm22\.(.+)", r"encoder.layers.\1.low_feed_forward.norm.\2"),
        (_DECODER + r"linear3\.(.+)", r"auxiliary_decoder.feed_forward.\1.linear1.\2"),
        (_DECODER + r"linear4\.(.+)", r"auxiliary_decoder.feed_forward.\1.linear2.\2"),
        (_DECODER + r"norm4\.(.+)", r"auxiliary_decoder.feed_forward.\1.norm.\2"),
        (r"transformer\.reference_points\.(.+)", r"queries.reference_points.\1"),
        (r"query_embed\.weight", r"queries.embedding"),
        (r"transformer\.pos_trans\.(.+)", r"queries.position_projection.\1"),
        (r"transformer\.pos_trans_norm\.(.+)", r"queries.position_norm.\1"),
        (r"transformer\.tgt_embed\.weight", r"queries.content"),
        (r"label_enc\.weight", r"denoising.label_embedding.weight"),
        (r"transformer\.enc_out_class_embed\.(.+)", r"proposal_head.class_embed.\1"),
        (r"transformer\.enc_out_bbox_embed\.(.+)", r"proposal_head.box_embed.\1"),
        (r"transformer\.enc_mask_predictor\.layer1\.(.+)", r"encoder.score_network.local.\1"),
        (r"transformer\.enc_mask_predictor\.layer2\.(.+)", r"encoder.score_network.joint.\1"),
        (r"transformer\.encoder\." + HEAD, _encoder_head),
        (r"(?:transformer\.decoder\.)?" + HEAD, head),
        (r"class_embed_o2m\.(.+)", r"auxiliary_decoder.class_embed.\1"),
        (r"bbox_embed_o2m\.(.+)", r"heads.box_embed.\1"),
    ),
)
