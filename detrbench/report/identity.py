"""Which detector a row is: its method, what the method is built on, its queries, and how much it keeps.

All of it follows from the detector's parts and options, so that one detector has one name, one colour and one shape in
every table and drawing, whatever its table calls it. Only rows without a detector of ours go by their printed name.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from detrbench import models
from detrbench.errors import DetrbenchError

DEFORMABLE, DINO, RT_DETR = "Deformable DETR", "DINO", "RT-DETR"
OTHER = "other"
# Methods that have a colour of their own, in the order of the palette; dense bases without one share Deformable DETR's.
METHODS = (DEFORMABLE, DINO, "Sparse DETR", "Focus-DETR", "Lite DETR", "DAC-DETR", "Salience-DETR", RT_DETR, OTHER)
# Bases in the order of their shapes; a base that is not listed has the last one.
SHAPES = {DEFORMABLE: "o", DINO: "s", "Deformable-DETR++": "D", "H-DETR": "^", "DN-Deformable-DETR": "v", OTHER: "X"}
STAR = "*"

_ENCODERS = {
    "sparse": "Sparse DETR",
    "sparse_objectness": "Sparse DETR (objectness)",
    "sparse_random": "Sparse DETR (random)",
    "focus": "Focus-DETR",
    "salience": "Salience-DETR",
    "lite": "Lite DETR",
    "hybrid": RT_DETR,
    "deformable": "deformable encoder",
}
# Of the second predictions of a decoder, which training alone makes.
_TRAINING = {"collaborative": "DAC-DETR", "mixed": "MS-DETR"}
# The encoder and the number of levels that a base has of its own.
_USUAL = {RT_DETR: ("hybrid", 3)}
# What papers print in front of, or as, the name of a method; the first that fits counts.
_PRINTED = (
    (r".*\bFocus-DETR", "Focus-DETR"),
    (r".*\bSparse DETR", "Sparse DETR"),
    (r"Salience[- ]DETR", "Salience-DETR"),
    (r"Li(te|ght)-", "Lite DETR"),
    (r"DAC-DETR|dac_", "DAC-DETR"),
    (r"MS-DETR", "MS-DETR"),
    (r"DINO", DINO),
    (r"RT-DETR", RT_DETR),
    (r"H-(Deformable-)?DETR", "H-DETR"),
    (r"DN-Deformable", "DN-Deformable-DETR"),
    (r"(Deformable-DETR|Deformable DETR ?)\+\+", "Deformable-DETR++"),
    (r"Deformable[- ]DETR", DEFORMABLE),
)


@dataclass(frozen=True)
class Identity:
    """One detector.

    Attributes:
        method: what its paper is about: "Sparse DETR"; of a dense detector its own name.
        base: the dense detector that the method changes.
        queries: where its queries come from: the name of the part; empty where that is not known.
        backbone: as `models` calls it.
        kept: share of the tokens that its encoder updates, the mean over layers; None where it updates all.
        levels: of the feature pyramid.
        decoder: the part, by name.
        known: whether the detector is one of ours, and not a printed name alone.
    """

    method: str
    base: str
    queries: str = ""
    backbone: str = ""
    kept: float | None = None
    levels: int = 4
    decoder: str = ""
    known: bool = True

    @property
    def is_baseline(self) -> bool:
        """Whether nothing was made more efficient, or trained in another way, than the base itself."""
        return self.known and self.method == self.base

    @property
    def name(self) -> str:
        """The detector in words, without how much it keeps: "Sparse DETR on DINO"."""
        base = self.base
        if self.base == DEFORMABLE and self.queries == "encoder":
            base = f"two-stage {DEFORMABLE}"
        base += f", {self.levels} scales" if self.levels != _usual(self.base)[1] else ""
        if not self.known:
            return self.method
        return base[0].upper() + base[1:] if self.is_baseline else f"{self.method} on {base}"

    @property
    def series(self) -> tuple[str, ...]:
        """What the points of one curve share."""
        return self.method, self.base, self.queries, self.backbone, str(self.levels)

    @property
    def family(self) -> str:
        """The method as legends name it: one of METHODS."""
        if not self.known and self.method not in SHAPES and self.method not in METHODS:
            return OTHER
        lead = self.method.partition(" + ")[0].partition(" (")[0]
        return lead if lead in METHODS else DEFORMABLE if self.base in SHAPES else OTHER

    @property
    def colour(self) -> int:
        """The number of its colour."""
        return METHODS.index(self.family)

    @property
    def marker(self) -> str:
        """A star for what others start from, else the shape of its base."""
        return STAR if self.is_baseline else SHAPES.get(self.base, SHAPES[OTHER])


def of_detector(model: str, options: Mapping[str, Any]) -> Identity | None:
    """What parts and options make of a model; None for one that is not known here."""
    try:
        return _resolved(model, json.dumps(dict(options), sort_keys=True))
    except (DetrbenchError, TypeError):
        return None


@functools.cache
def _resolved(model: str, options: str) -> Identity:
    spec = models.resolve(model, json.loads(options))
    parts, base = spec.parts, _base(spec)
    methods = [_ENCODERS.get(parts["encoder"], parts["encoder"])] if parts["encoder"] != _usual(base)[0] else []
    methods += [_TRAINING[parts["auxiliary_decoder"]]] if parts["auxiliary_decoder"] in _TRAINING else []
    return Identity(
        method=" + ".join(methods) or base,
        base=base,
        queries=parts["queries"],
        backbone=parts["backbone"],
        kept=kept(spec.options),
        levels=int(spec.options.get("num_levels", 4)),
        decoder=parts["decoder"],
    )


def _usual(base: str) -> tuple[str, int]:
    return _USUAL.get(base, ("deformable", 4))


def _base(spec: models.DetectorSpec) -> str:
    """The dense detector under whatever encoder: by decoder, then by what its queries and its training are."""
    decoder = spec.parts["decoder"]
    if decoder != "deformable":
        return {"dino": DINO, "dab": "DN-Deformable-DETR", "rt_detr": RT_DETR}.get(decoder, decoder)
    if spec.parts["one_to_many"] == "hybrid":
        return "H-DETR"
    return "Deformable-DETR++" if spec.options.get("mixed_selection") else DEFORMABLE


def kept(options: Mapping[str, Any]) -> float | None:
    """The share of tokens that the encoder updates: one ratio, or the mean of a ratio for each layer.

    Where levels have ratios too, each level counts with a quarter of the tokens of the one before, as strides double.
    """
    levels, layers = options.get("level_ratios"), options.get("layer_ratios")
    if levels and layers:
        cells = [4.0**-level for level in range(len(levels))]
        share = sum(ratio * number for ratio, number in zip(levels, cells)) / sum(cells)
        return round(share * sum(layers) / len(layers), 4)
    ratios = options.get("keep_ratios")
    if isinstance(ratios, list | tuple) and ratios:
        return round(sum(ratios) / len(ratios), 4)
    ratio = options.get("keep_ratio")
    return float(ratio) if isinstance(ratio, int | float) and not isinstance(ratio, bool) else None


def of_elsewhere(name: str, source: str) -> Identity:
    """A detector from elsewhere: its name with the library that it is of."""
    kind, _, rest = source.partition(":")
    library = {"hf": "transformers", "factory": rest.partition(":")[0]}.get(kind, kind)
    return Identity(method=f"{name} ({library})", base=OTHER, known=False)


def of_printed(name: str, values: Mapping[str, Any]) -> Identity:
    """A published row of which there is no detector here, by its printed name and columns."""
    method = next((called for pattern, called in _PRINTED if re.match(pattern, name)), name)
    ratio = values.get("keep_ratio")
    return Identity(
        method=method,
        base=DINO if "DINO" in name else OTHER if method == name else method,
        backbone=str(values.get("backbone") or ""),
        kept=float(ratio) if isinstance(ratio, int | float) else None,
        known=False,
    )
