"""Lets tests import the helpers that lie beside them, and keeps every run to itself."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
