"""Builds a detector from elsewhere and gives it its weights. What builds it is imported here, when it is wanted."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from detrbench.errors import DetrbenchError, UsageError
from detrbench.external import remote
from detrbench.external.detector import Adapted, ExternalDetector
from detrbench.external.sources import Source


def load(
    source: Source,
    options: Mapping[str, Any],
    seed: int = 0,
    weights: Path | None = None,
    python: str | None = None,
    patience: float | None = None,
) -> Adapted:
    """A detector from elsewhere in eval mode, on the CPU, or on the device that is the default.

    Args:
        source: where it comes from.
        options: of the row; see `sources`.
        seed: of its random weights.
        weights: a file that fills it.
        python: the interpreter that runs it, if that is another one.
        patience: seconds that one there has for each answer; None: as many as it takes.

    Raises:
        UsageError: it cannot be built, or is none; the message names the source.
        CheckpointError: the file is not of this detector.
        WorkerFailed: the other interpreter cannot build it.
    """
    if python is not None:
        return Adapted(remote.detector(python, source.name, options, seed, weights, patience), source.text).eval()
    torch.manual_seed(seed)
    build: Callable[..., ExternalDetector] = importlib.import_module(_BUILDERS[source.kind]).build
    try:
        external = build(source, dict(options))
    except Exception as error:
        # What it does may need values: on meta, where there are none, whoever asked has to see what was raised.
        if isinstance(error, DetrbenchError) or torch.get_default_device().type == "meta":
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{source.text}: cannot be built: {type(error).__name__}: {first}") from error
    detector = Adapted(external, source.text)
    if weights is not None:
        external.load_weights(detector.module, weights)
    return detector.eval()


_BUILDERS = {
    "hub": "detrbench.external.from_transformers",
    "hf": "detrbench.external.from_transformers",
    "torchvision": "detrbench.external.from_torchvision",
    "factory": "detrbench.external.from_factory",
    "onnx": "detrbench.external.from_onnx",
}
