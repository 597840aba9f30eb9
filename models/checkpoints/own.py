"""Our own names."""

from detrbench.models.checkpoints.adapter import Adapter

ADAPTER = Adapter(name="detrbench", marker=r"neck\.projections\.", rules=())
