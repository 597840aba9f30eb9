"""Names of Deformable DETR in Hugging Face transformers: those of published files, and those in memory since 5.0.

It computes what the original code does (fundamentalvision/Deformable-DETR), but holds query, key and value projection
of the self-attention apart, and its files may name a shared tensor only once.
"""

from __future__ import annotations

from detrbench.models.checkpoints.adapter import Adapter
from detrbench.models.checkpoints.original import HEAD, head

_ENCODER = r"model\.encoder\.layers\.(\d+)\."
_DECODER = r"model\.decoder\.layers\.(\d+)\."

ADAPTER = Adapter(
    name="transformers",
    marker=r"model\.level_embed$",
    rules=(
        (r"model\.backbone\.(?:conv_encoder\.)?model\.(.+)", r"backbone.body.\1"),
        (r"model\.input_proj\.(.+)", r"neck.projections.\1"),
        (r"model\.level_embed", r"neck.level_embed"),
        (_ENCODER + r"self_attn\.(.+)", r"encoder.layers.\1.attention.\2"),
        (_ENCODER + r"self_attn_layer_norm\.(.+)", r"encoder.layers.\1.attention_norm.\2"),
        (_ENCODER + r"(?:mlp\.)?fc([12])\.(.+)", r"encoder.layers.\1.feed_forward.linear\2.\3"),
        (_ENCODER + r"final_layer_norm\.(.+)", r"encoder.layers.\1.feed_forward.norm.\2"),
        (_DECODER + r"encoder_attn\.(.+)", r"decoder.layers.\1.cross_attention.\2"),
        (_DECODER + r"encoder_attn_layer_norm\.(.+)", r"decoder.layers.\1.cross_attention_norm.\2"),
        (_DECODER + r"self_attn\.q_proj\.(.+)", r"decoder.layers.\1.self_attention.in_proj_\2[0]"),
        (_DECODER + r"self_attn\.k_proj\.(.+)", r"decoder.layers.\1.self_attention.in_proj_\2[1]"),
        (_DECODER + r"self_attn\.v_proj\.(.+)", r"decoder.layers.\1.self_attention.in_proj_\2[2]"),
        (_DECODER + r"self_attn\.(?:o|out)_proj\.(.+)", r"decoder.layers.\1.self_attention.out_proj.\2"),
        (_DECODER + r"self_attn_layer_norm\.(.+)", r"decoder.layers.\1.self_attention_norm.\2"),
        (_DECODER + r"(?:mlp\.)?fc([12])\.(.+)", r"decoder.layers.\1.feed_forward.linear\2.\3"),
        (_DECODER + r"final_layer_norm\.(.+)", r"decoder.layers.\1.feed_forward.norm.\2"),
        (r"model\.query_position_embeddings\.weight", r"queries.embedding"),
        (r"model\.reference_points\.(.+)", r"queries.reference_points.\1"),
        (r"model\.pos_trans\.(.+)", r"queries.position_projection.\1"),
        (r"model\.pos_trans_norm\.(.+)", r"queries.position_norm.\1"),
        (r"model\.enc_output\.(.+)", r"proposal_head.projection.\1"),
        (r"model\.enc_output_norm\.(.+)", r"proposal_head.norm.\1"),
        (r"(?:model\.decoder\.)?" + HEAD, head),
    ),
    # A refining model that was never given separate class heads is saved with the first one alone.
    shared=((r"heads\.class_embed\.[1-9]\d*\.(.+)", r"heads.class_embed.0.\1"),),
)
