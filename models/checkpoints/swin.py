"""Names of the Swin Transformer's detection code, which every repository keeps below a prefix of its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from detrbench.models.catalogue import STRIDES
from detrbench.models.checkpoints.adapter import Rule

if TYPE_CHECKING:
    from detrbench.models.detector import Detector

_PATCH_EMBED = {"proj": 0, "norm": 2}
_MLP = {"fc1": 0, "fc2": 3}


def swin_rules(prefix: str) -> tuple[Rule, ...]:
    r"""Rules for a Swin backbone whose names begin with `prefix`, a regular expression without groups.

    `backbone\.0\.body\.` in Sparse DETR and H-DETR, `backbone\.0\.` in DINO, `backbone\.` in detrex.
    """
    block = prefix + r"layers\.(?P<stage>\d+)\.blocks\.(?P<block>\d+)\."
    return (
        (prefix + r"patch_embed\.(?P<layer>proj|norm)\.(?P<rest>.+)", _patch_embed),
        (block + r"mlp\.(?P<layer>fc[12])\.(?P<rest>.+)", _mlp),
        (block + r"(?P<rest>.+)", _block),
        (prefix + r"layers\.(?P<stage>\d+)\.downsample\.(?P<rest>.+)", _merging),
        (prefix + r"norm(?P<stage>\d)\.(?P<rest>.+)", _output_norm),
    )


def _patch_embed(match: re.Match[str], detector: Detector) -> str:
    return f"backbone.body.features.0.{_PATCH_EMBED[match['layer']]}.{match['rest']}"


def _block(match: re.Match[str], detector: Detector) -> str:
    """`features` holds the patch embedding, then blocks and merging in turn."""
    return f"backbone.body.features.{2 * int(match['stage']) + 1}.{match['block']}.{match['rest']}"


def _mlp(match: re.Match[str], detector: Detector) -> str:
    stage = 2 * int(match["stage"]) + 1
    return f"backbone.body.features.{stage}.{match['block']}.mlp.{_MLP[match['layer']]}.{match['rest']}"


def _merging(match: re.Match[str], detector: Detector) -> str:
    return f"backbone.body.features.{2 * int(match['stage']) + 2}.{match['rest']}"


def _output_norm(match: re.Match[str], detector: Detector) -> str:
    first = len(STRIDES) - len(detector.backbone.channels)
    return f"backbone.norms.{int(match['stage']) - first}.{match['rest']}"
