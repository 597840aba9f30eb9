"""The log of a training for TensorBoard, whose package is an extra: scalars by optimiser step."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from detrbench.errors import EnvironmentLacking


def require() -> None:
    """Raises EnvironmentLacking where the package is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise EnvironmentLacking("--tensorboard needs the package tensorboard", "pip install 'detrbench[tensorboard]'")


class Board:
    """Writes into a folder that `tensorboard --logdir` shows, or nowhere.

    Args:
        folder: created; None writes nothing. What an earlier run wrote of steps that are done again is not shown.
        step: steps done so far.
    """

    def __init__(self, folder: Path | None, step: int) -> None:
        self.writer = None
        if folder is not None:
            require()
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(folder), purge_step=step + 1)

    def add(self, step: int, figures: Mapping[str, float | None]) -> None:
        """Enters figures by tag, but those that there are none of."""
        if self.writer is not None:
            for tag, value in figures.items():
                if value is not None:
                    self.writer.add_scalar(tag, value, step)
            self.writer.flush()

    def close(self) -> None:
        """Nothing is entered any more."""
        if self.writer is not None:
            self.writer.close()
