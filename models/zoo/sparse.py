"""Sparse DETR (Roh et al., ICLR 2022, arXiv 2111.14330); code: kakaobrain/sparse-detr@f40632c."""

from dataclasses import replace

from detrbench.models.zoo import register_family
from detrbench.models.zoo.efficient import EFFICIENT

SPARSE = replace(
    EFFICIENT,
    name="sparse_detr",
    summary="Sparse DETR: the encoder updates only a share of the tokens",
    doc="A score network, trained to predict the decoder's attention map, picks the tokens that the encoder updates; "
    "all tokens stay keys. Auxiliary heads supervise each encoder layer.",
    parts={**EFFICIENT.parts, "encoder": "sparse"},
)

register_family(SPARSE)
