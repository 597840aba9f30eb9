"""Names of IDEA-Research/detrex, and of huawei-noah's Focus-DETR, which is built on it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from detrbench.models.checkpoints.adapter import Adapter
from detrbench.models.checkpoints.own import modulation_only
from detrbench.models.checkpoints.resnet import resnet_rules
from detrbench.models.checkpoints.swin import swin_rules

if TYPE_CHECKING:
    from detrbench.models.detector import Detector

_KINDS = {"class": "class_embed", "bbox": "box_embed"}


def _head(match: re.Match[str], detector: Detector) -> str:
    """Heads lie in one list: decoder layers, then the proposal head."""
    kind, index, rest = _KINDS[match["kind"]], int(match["index"]), match["rest"]
    options = detector.spec.options
    if index < options["num_decoder_layers"]:
        return f"heads.{kind}.{0 if options['shared_heads'] else index}.{rest}"
    return f"proposal_head.{kind}.{rest}"


def _extra_level(match: re.Match[str], detector: Detector) -> str:
    """Further levels are counted from 0 again."""
    index = len(detector.backbone.channels) + int(match[1])
    return f"neck.projections.{index}.{_NECK[match[2]]}.{match[3]}"


_NECK = {"conv": 0, "norm": 1}
_ENCODER = r"transformer\.encoder\.layers\.(\d+)\."
_DECODER = r"transformer\.decoder\.layers\.(\d+)\."

ADAPTER = Adapter(
    name="detrex",
    marker=r"transformer\.level_embeds$",
    rules=(
        (r".*\.num_batches_tracked", None),
        *resnet_rules(r"backbone\."),
        *swin_rules(r"backbone\."),
        (r"neck\.convs\.(\d+)\.conv\.(.+)", r"neck.projections.\1.0.\2"),
        (r"neck\.convs\.(\d+)\.norm\.(.+)", r"neck.projections.\1.1.\2"),
        (r"neck\.extra_convs\.(\d+)\.(conv|norm)\.(.+)", _extra_level),
        (r"transformer\.level_embeds", r"neck.level_embed"),
        (_ENCODER + r"attentions\.0\.attn\.(.+)", r"encoder.dual_attention.\1.attention.\2"),
        (_ENCODER + r"norm2\.(.+)", r"encoder.dual_attention.\1.norm.\2"),
        (r"transformer\.alpha", modulation_only),
        (r"transformer\.enc_mask_predictor\.layer1\.(.+)", r"encoder.selector.score_network.local.\1"),
        (r"transformer\.enc_mask_predictor\.layer2\.(.+)", r"encoder.selector.score_network.joint.\1"),
        # Focus-DETR lists the proposal head's classes once more for each encoder layer.
        (r"(?:transformer\.encoder\.enhance_MCSP|enhance_MCSP_layerlist)\.\d+\.(.+)", r"proposal_head.class_embed.\1"),
        (_ENCODER + r"attentions\.\d\.(.+)", r"encoder.layers.\1.attention.\2"),
        (_ENCODER + r"norms\.0\.(.+)", r"encoder.layers.\1.attention_norm.\2"),
        (_ENCODER + r"norms\.1\.(.+)", r"encoder.layers.\1.feed_forward.norm.\2"),
        (_ENCODER + r"ffns\.0\.layers\.0\.0\.(.+)", r"encoder.layers.\1.feed_forward.linear1.\2"),
        (_ENCODER + r"ffns\.0\.layers\.1\.(.+)", r"encoder.layers.\1.feed_forward.linear2.\2"),
        (_DECODER + r"attentions\.0\.attn\.(.+)", r"decoder.layers.\1.self_attention.\2"),
        (_DECODER + r"attentions\.1\.(.+)", r"decoder.layers.\1.cross_attention.\2"),
        (_DECODER + r"norms\.0\.(.+)", r"decoder.layers.\1.self_attention_norm.\2"),
        (_DECODER + r"norms\.1\.(.+)", r"decoder.layers.\1.cross_attention_norm.\2"),
        (_DECODER + r"norms\.2\.(.+)", r"decoder.layers.\1.feed_forward.norm.\2"),
        (_DECODER + r"ffns\.0\.layers\.0\.0\.(.+)", r"decoder.layers.\1.feed_forward.linear1.\2"),
        (_DECODER + r"ffns\.0\.layers\.1\.(.+)", r"decoder.layers.\1.feed_forward.linear2.\2"),
        (r"transformer\.decoder\.norm\.(.+)", r"decoder.norm.\1"),
        (r"transformer\.decoder\.ref_point_head\.(.+)", r"decoder.box_position.network.\1"),
        (r"transformer\.decoder\.query_scale\.(.+)", r"decoder.position_scale.\1"),
        (r"transformer\.reference_points\.(.+)", r"queries.reference_points.\1"),
        (r"query_embedding\.weight", r"queries.embedding"),
        (r"(?:transformer\.)?tgt_embed\.weight", r"queries.content"),
        (r"refpoint_embed\.weight", r"queries.anchors"),
        (r"denoising_generator\.label_encoder\.weight", r"denoising.label_embedding.weight"),
        (r"transformer\.pos_trans\.(.+)", r"queries.position_projection.\1"),
        (r"transformer\.pos_trans_norm\.(.+)", r"queries.position_norm.\1"),
        (r"transformer\.enc_output\.(.+)", r"proposal_head.projection.\1"),
        (r"transformer\.enc_output_norm\.(.+)", r"proposal_head.norm.\1"),
        (r"label_enc\.weight", r"denoising.label_embedding.weight"),
        (r"(?:transformer\.decoder\.)?(?P<kind>class|bbox)_embed\.(?P<index>\d+)\.(?P<rest>.+)", _head),
    ),
)
