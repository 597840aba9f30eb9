"""Sparse DETR (Roh et al., ICLR 2022, arXiv 2111.14330); code: kakaobrain/sparse-detr@f40632c."""

from dataclasses import replace

from detrbench.models.zoo import Variant, register_family
from detrbench.models.zoo.deformable import REFINE
from detrbench.models.zoo.dino import DINO
from detrbench.models.zoo.dn import DN_DEFORMABLE
from detrbench.models.zoo.efficient import EFFICIENT

SPARSE = replace(
    EFFICIENT,
    name="sparse_detr",
    summary="Sparse DETR: the encoder updates only a share of the tokens",
    doc="A score network, trained to predict the decoder's attention map, picks the tokens that the encoder updates; "
    "all tokens stay keys. Auxiliary heads supervise each encoder layer.",
    parts={**EFFICIENT.parts, "encoder": "sparse"},
)


def on_base(base: Variant, title: str) -> Variant:
    """That base with the Sparse encoder (Focus-DETR, Table 3)."""
    return replace(
        base,
        name=f"sparse_{base.name}",
        summary=f"Sparse DETR's encoder on {title}",
        doc=SPARSE.doc,
        parts={**base.parts, "encoder": "sparse"},
    )


for _variant in (
    SPARSE,
    on_base(replace(REFINE, name="deformable_detr"), "Deformable DETR with learned queries"),
    on_base(DN_DEFORMABLE, "DN-Deformable-DETR"),
    on_base(DINO, "DINO"),
):
    register_family(_variant)
