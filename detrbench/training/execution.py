"""How a step is computed, whatever it computes: in which precision and memory format, compiled, with what kept."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from detrbench.errors import Diverged, UsageError
from detrbench.models.detector import Detector
from detrbench.models.layers import DecoderLayer, EncoderLayer
from detrbench.training.recipe import BF16, FLOAT32, FP16, Recipe

AUTOCAST = {BF16: torch.bfloat16, FP16: torch.float16}
LEAST_SCALE = 2.0**-13  # gradients that overflow even so are not too large for fp16 alone


class Precision:
    """What the forward computes in, and for fp16 the factor that keeps its gradients in range.

    Processes that share a step keep the same factor: it follows from the summed gradient, which all of them have.

    Attributes:
        name: as in a recipe.
        scaler: multiplies losses, divides gradients, and leaves a step out where one of them is not finite; without
            fp16 it does nothing.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.name, self.device = name, device
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == FP16)
        # Makes the factor, for a process that has no images, and so no loss, in the first step that it takes part in.
        self.scaler.scale(torch.zeros((), device=device))

    def autocast(self) -> AbstractContextManager[Any]:
        """For a forward; nothing in float32."""
        return torch.autocast(self.device.type, AUTOCAST[self.name]) if self.name in AUTOCAST else nullcontext()

    def figures(self) -> dict[str, float]:
        """For the log: `loss_scale`, where there is one. Waits for the device."""
        return {"loss_scale": self.scaler.get_scale()} if self.scaler.is_enabled() else {}

    def check(self) -> None:
        """Raises Diverged where steps are left out without end."""
        if self.scaler.is_enabled() and self.scaler.get_scale() < LEAST_SCALE:
            raise Diverged("training diverged: gradients are not finite in fp16, however small", "--set precision=bf16")


FULL = Precision(FLOAT32, torch.device("cpu"))  # on any device


def prepare(detector: Detector, recipe: Recipe) -> None:
    """Makes a detector train as a recipe asks; its parameters keep their names and values.

    Raises:
        UsageError: its encoder has no layers whose activations could be left out.
    """
    if recipe.channels_last:
        detector.to(memory_format=torch.channels_last)
    if recipe.activation_checkpointing:
        _recompute(detector)
    if recipe.compile:
        for module in _compiled(detector):
            module.compile(fullgraph=True, dynamic=True)  # images of any size without compiling again


def uncompiled(recipe: Recipe) -> AbstractContextManager[Any]:
    """For measures: each takes the detector as it is, whatever has trained it."""
    return torch.compiler.set_stance("force_eager") if recipe.compile else nullcontext()


def comes_from_the_compiler(error: Exception) -> bool:
    """Whether `torch.compile` could not do with what it was given, or had no compiler of its own."""
    return type(error).__module__ == "torch._dynamo.exc"  # which takes seconds to import


def can_recompute(detector: Detector) -> bool:
    """Whether activation checkpointing would save what it does not save yet."""
    return any(not layer.recomputed for layer in _encoder_layers(detector))


def _recompute(detector: Detector) -> None:
    if not can_recompute(detector):
        name = detector.spec.parts["encoder"]
        raise UsageError(f"activation_checkpointing: the encoder {name!r} has no layers", "leave it out")
    for layer in _encoder_layers(detector):
        layer.recomputed = True


def _encoder_layers(detector: Detector) -> list[EncoderLayer]:
    return [module for module in detector.get_submodule("encoder").modules() if isinstance(module, EncoderLayer)]


def _compiled(detector: Detector) -> list[nn.Module]:
    layers = [module for module in detector.modules() if isinstance(module, EncoderLayer | DecoderLayer)]
    return [detector.get_submodule("backbone"), *layers]
