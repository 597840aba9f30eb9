"""Our own names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from detrbench.models.checkpoints.adapter import Adapter

if TYPE_CHECKING:
    from detrbench.models.detector import Detector


def modulation_only(match: re.Match[str], detector: Detector) -> str | None:
    """Focus-DETR's factors of the modulation; without a modulation nothing reads them."""
    return None if detector.spec.options.get("modulation") == "none" else "encoder.selector.alpha"


ADAPTER = Adapter(
    name="detrbench",
    marker=r"neck\.projections\.",
    rules=((r"encoder\.selector\.alpha", modulation_only),),
)
