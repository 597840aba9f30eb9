"""Focus-DETR (Zheng et al., ICCV 2023, arXiv 2307.12612); code: huawei-noah/noah-research@aa0f80c Focus-DETR.

Only the version on DINO is public; the paper's Table 3 has three more bases.
"""

from detrbench.models.zoo import Variant, register_family, with_encoder
from detrbench.models.zoo.deformable import REFINE
from detrbench.models.zoo.dino import DETREX, DINO
from detrbench.models.zoo.dn import DN_DEFORMABLE
from detrbench.models.zoo.efficient import EFFICIENT

DOC = (
    "A selector, trained with the objects' boxes, scores tokens as foreground from coarse to fine; each encoder layer "
    "updates a smaller share of the best, and the 300 most promising of those also attend to each other."
)


def _on_base(name: str, base: Variant, title: str, **options: object) -> Variant:
    summary = f"Focus-DETR on {title}: the encoder updates foreground tokens"
    return with_encoder(base, "focus", name=name, summary=summary, doc=DOC, options=options)


FOCUS = _on_base("focus_detr", DINO, "DINO", **DETREX)

for _variant in (
    FOCUS,
    _on_base("focus_deformable_detr", REFINE, "Deformable DETR with learned queries"),
    _on_base("focus_efficient_detr", EFFICIENT, "Deformable DETR with top-k object queries"),
    _on_base("focus_dn_deformable_detr", DN_DEFORMABLE, "DN-Deformable-DETR"),
):
    register_family(_variant)
