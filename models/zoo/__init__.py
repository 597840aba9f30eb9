"""Named variants: each is a choice of parts with a reason, and nothing that another variant already says.

A module here describes one paper. Variants are data; the difference of two of them is the ablation. Imports no torch.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from detrbench.errors import UsageError, unknown_name
from detrbench.models.parts import load_plugins

# How a backbone is written in a variant's name, as the papers' repositories write it.
BACKBONES = {
    "r50": "resnet50",
    "r101": "resnet101",
    "swin_t": "swin_tiny",
    "swin_b": "swin_base",
    "swin_b_384": "swin_base_384",
    "swin_l": "swin_large",
    "tiny": "tiny",
}
# ResNet-D, as RT-DETR writes it; only its heirs are named after one.
RESNETS_D = {"r18vd": "resnet18_vd", "r34vd": "resnet34_vd", "r50vd": "resnet50_vd", "r101vd": "resnet101_vd"}


@dataclass(frozen=True)
class OfBackbone:
    """An option's value for some backbones, by the names of their parts; for others the part's default holds."""

    values: Mapping[str, Any]


def of_backbone(options: Mapping[str, Any], backbone: str) -> dict[str, Any]:
    """Options of a variant as they are with one backbone."""
    chosen: dict[str, Any] = {}
    for name, value in options.items():
        if not isinstance(value, OfBackbone):
            chosen[name] = value
        elif backbone in value.values:
            chosen[name] = value.values[backbone]
    return chosen


@dataclass(frozen=True)
class Variant:
    """One named detector.

    Args:
        name: what `models.create` takes.
        summary: one line.
        doc: what the paper changes, with paper and code (repository@commit).
        parts: the part for each kind.
        options: option values that differ from the parts' defaults; one may depend on the backbone (`OfBackbone`).
        sources: conventions of other code bases for the same detector, as option values.
        image_size: of an image that it was made for: short side, longest side, whether it is stretched to a square.
    """

    name: str
    summary: str
    doc: str
    parts: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    image_size: tuple[int, int, bool] = (800, 1333, False)

    @property
    def base(self) -> str:
        """The name without its backbone: what `models.create(base=...)` takes."""
        for short in {**BACKBONES, **RESNETS_D}:
            if self.name.endswith(f"_{short}"):
                return self.name[: -len(short) - 1]
        return self.name


_VARIANTS: dict[str, Variant] = {}


def register_variant(variant: Variant) -> None:
    """Add a variant; a name that is taken is an error."""
    if variant.name in _VARIANTS:
        raise UsageError(f"variant {variant.name!r} is registered already")
    _VARIANTS[variant.name] = variant


def register_family(base: Variant, backbones: tuple[str, ...] = tuple(BACKBONES)) -> None:
    """Add one variant for each backbone, named `<base>_<backbone>`."""
    for short in backbones:
        register_variant(
            Variant(
                name=f"{base.name}_{short}",
                summary=base.summary,
                doc=base.doc,
                parts={**base.parts, "backbone": {**BACKBONES, **RESNETS_D}[short]},
                options=base.options,
                sources=base.sources,
                image_size=base.image_size,
            )
        )


def with_encoder(
    base: Variant,
    encoder: str,
    *,
    name: str,
    summary: str,
    doc: str,
    options: Mapping[str, Any] | None = None,
    sources: Mapping[str, Mapping[str, Any]] | None = None,
) -> Variant:
    """That base with another encoder, options on top of the base's, and the base's sources only where they are named.

    What a code base does to the base says nothing of it with the new encoder.
    """
    return Variant(
        name=name,
        summary=summary,
        doc=doc,
        parts={**base.parts, "encoder": encoder},
        options={**base.options, **(options or {})},
        sources=sources or {},
    )


@functools.cache
def _load() -> None:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    load_plugins()


def get_variant(name: str) -> Variant:
    """The variant of that name; unknown names raise `UsageError` with the nearest match."""
    _load()
    if name not in _VARIANTS:
        raise unknown_name("model", name, _VARIANTS, "detrbench list models")
    return _VARIANTS[name]


def variant_names() -> list[str]:
    """Sorted names of all variants, those of installed plug-ins (entry point `detrbench.models`) included."""
    _load()
    return sorted(_VARIANTS)
