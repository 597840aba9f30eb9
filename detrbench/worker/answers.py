"""What can be asked in this interpreter; `external/interpreter.py` asks."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from . import identity


class Answers:
    """One detector at most, which comes with the question `load`; PyTorch is imported then, and not before."""

    def __init__(self) -> None:
        self._detector: Any = None

    def to(self, question: Mapping[str, Any], blobs: Sequence[bytes]) -> dict[str, Any]:
        """`{"said": answer}`, or why there is none: `{"error": one line, "trace": all of it}`."""
        try:
            return {"said": self._said(question["ask"], blobs, question["with"])}
        except Exception as error:
            first = (str(error).strip().splitlines() or ["no message"])[0]
            return {"error": f"{type(error).__name__}: {first}", "trace": traceback.format_exc()}

    def _said(self, what: str, blobs: Sequence[bytes], arguments: Mapping[str, Any]) -> Any:
        if what == "describe":
            return identity.describe(**arguments)
        if what == "load":
            from .detector import Detector

            self._detector = Detector(**arguments)
            what, arguments = "describe", {}
        return getattr(self._detector, what)(*blobs, **arguments)
