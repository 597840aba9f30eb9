"""Sparse DETR (Roh et al., ICLR 2022, arXiv 2111.14330); code: kakaobrain/sparse-detr@f40632c."""

from dataclasses import replace

from detrbench.models.zoo import Variant, register_family, with_encoder
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


def _on_base(base: Variant, title: str) -> Variant:
    """As Focus-DETR's Table 3 has it."""
    return with_encoder(
        base,
        "sparse",
        name=f"sparse_{base.name}",
        summary=f"Sparse DETR's encoder on {title}",
        doc=SPARSE.doc,
        sources=base.sources,
    )


for _variant in (
    SPARSE,
    _on_base(replace(REFINE, name="deformable_detr"), "Deformable DETR with learned queries"),
    _on_base(DN_DEFORMABLE, "DN-Deformable-DETR"),
    _on_base(DINO, "DINO"),
):
    register_family(_variant)
