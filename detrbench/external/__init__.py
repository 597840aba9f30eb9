"""Detectors from elsewhere, measured under the same rules as those of detrbench. Importing this imports no torch.

A row of a suite names where one comes from (`sources.py`), and whoever has a module of their own hands over an
`ExternalDetector`:

```python
from detrbench import external


def mine() -> external.ExternalDetector:
    return external.ExternalDetector(module=MyDetector())
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detrbench.data.transforms import Eval, Stretch
    from detrbench.external.detector import ExternalDetector
    from detrbench.models.detections import Detections

__all__ = ["Detections", "Eval", "ExternalDetector", "Stretch"]


def __getattr__(name: str) -> Any:
    # All of these need torch, so they are imported when first asked for.
    if name in ("Eval", "Stretch"):
        from detrbench.data import transforms

        return getattr(transforms, name)
    if name == "ExternalDetector":
        from detrbench.external.detector import ExternalDetector

        return ExternalDetector
    if name == "Detections":
        from detrbench.models.detections import Detections

        return Detections
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
