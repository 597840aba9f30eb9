"""Names of xiuqhou/Salience-DETR, which calls things as detrex does where it is not the original's."""

from __future__ import annotations

from detrbench.models.checkpoints.adapter import Adapter, Rule
from detrbench.models.checkpoints.original import LAYERS

_ENCODER = r"transformer\.encoder\.layers\.(\d+)\."
# A level's block in the official code counts from the finest; `conv1` and `conv2` lead into it and around it.
_FUSION = r"transformer\.neck\."
_BLOCK = r"\.(\d+)\.bottlenecks\.(\d+)\."


def _fusion_rules(theirs: str, ours: str) -> tuple[Rule, ...]:
    """Of one of the two paths."""
    start, into = _FUSION + theirs, rf"encoder.fusion.{ours}.\1."
    block = into + r"blocks.\2."
    return (
        (start + r"\.(\d+)\.conv1\.(.+)", into + r"main.\2"),
        (start + r"\.(\d+)\.conv2\.(.+)", into + r"around.\2"),
        (start + _BLOCK + r"conv1\.(.+)", block + r"wide.\3"),
        (start + _BLOCK + r"conv2\.(.+)", block + r"narrow.\3"),
        (start + _BLOCK + r"se_module\.conv_mask\.bias", None),  # which moves nothing
        (start + _BLOCK + r"se_module\.conv_mask\.(.+)", block + r"channels.cell_score.\3"),
        (start + _BLOCK + r"se_module\.se_module\.0\.(.+)", block + r"channels.squeeze.\3"),
        (start + _BLOCK + r"se_module\.se_module\.2\.(.+)", block + r"channels.excite.\3"),
    )


ADAPTER = Adapter(
    name="Salience-DETR",
    marker=r"transformer\.level_filter_ratio$",
    rules=(
        # What the options say here, the position embedding's constants, and names of classes for its pictures.
        (r"transformer\.(?:level|layer)_filter_ratio|position_embedding\.dim_t[xy]|_classes_", None),
        (r"backbone\.(?!.*num_batches_tracked)(.+)", r"backbone.body.\1"),
        (r"neck\.convs\.(.+)", r"neck.projections.\1"),
        (r"transformer\.level_embeds", r"neck.level_embed"),
        (r"transformer\.alpha", r"encoder.selector.alpha[::-1]"),  # by level there, by step here
        (r"transformer\.enc_mask_predictor\.layer1\.(.+)", r"encoder.selector.score_network.local.\1"),
        (r"transformer\.enc_mask_predictor\.layer2\.(.+)", r"encoder.selector.score_network.joint.\1"),
        (_ENCODER + r"pre_attention\.(.+)", r"encoder.dual_attention.\1.attention.\2"),
        (_ENCODER + r"pre_norm\.(.+)", r"encoder.dual_attention.\1.norm.\2"),
        *LAYERS,
        (r"transformer\.encoder\.background_embedding\.row_embed\.weight", r"encoder.background.rows"),
        (r"transformer\.encoder\.background_embedding\.col_embed\.weight", r"encoder.background.columns"),
        (r"transformer\.encoder\.enhance_mcsp\.(.+)", r"proposal_head.class_embed.\1"),
        (_FUSION + r"lateral_convs\.(.+)", r"encoder.fusion.lateral.\1"),
        (_FUSION + r"downsample_blocks\.(.+)", r"encoder.fusion.downsample.\1"),
        *_fusion_rules("layer_blocks", "top_down"),
        *_fusion_rules("pan_blocks", "bottom_up"),
        (r"transformer\.encoder_class_head\.(.+)", r"proposal_head.class_embed.\1"),
        (r"transformer\.encoder_bbox_head\.(.+)", r"proposal_head.box_embed.\1"),
        (r"transformer\.tgt_embed\.weight", r"queries.content"),
        (r"transformer\.decoder\.class_head\.(.+)", r"heads.class_embed.\1"),
        (r"transformer\.decoder\.bbox_head\.(.+)", r"heads.box_embed.\1"),
        (r"denoising_generator\.label_encoder\.weight", r"denoising.label_embedding.weight"),
    ),
)
