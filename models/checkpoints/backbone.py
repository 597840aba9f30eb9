"""Weights of a backbone alone, as those who trained it on ImageNet published them.

torchvision's ResNets; the same converted by detectron2 (its tools/convert-torchvision-to-d2.py); ResNets trained
without labels (kakaobrain/scrl); RT-DETR's ResNet-D; Microsoft's Swin Transformers (microsoft/Swin-Transformer). What
only their classifier or their training reads is left out; the rest is read strictly.
`models/backbones/imagenet.py` says which file the papers began with.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from detrbench.errors import CheckpointError
from detrbench.files import sha256
from detrbench.models.checkpoints.adapter import Adapter
from detrbench.models.checkpoints.fitting import LoadReport, check_fit
from detrbench.models.checkpoints.reading import read
from detrbench.models.checkpoints.resnet import resnet_rules
from detrbench.models.checkpoints.rt_detr import resnet_d_rules
from detrbench.models.checkpoints.swin import swin_rules

if TYPE_CHECKING:
    from detrbench.models.detector import Detector

BACKBONE = "backbone."
# A detector's own norm of each level that a Swin hands out; a classifier has one behind the last alone.
_OWN = re.compile(r"backbone\.norms\..+")
_COUNTER = (r".*\.num_batches_tracked", None)

ADAPTERS = (
    Adapter(
        name="torchvision",
        marker=r"layer1\.0\.conv1\.weight$",
        rules=(_COUNTER, (r"fc\..+", None), (r"((?:conv1|bn1|layer\d)\..+)", r"backbone.body.\1")),
    ),
    Adapter(
        name="detectron2",
        marker=r"stem\.conv1\.weight$",
        rules=(_COUNTER, (r"stem\.fc\..+", None), *resnet_rules("")),
    ),
    Adapter(
        name="SCRL",
        marker=r"encoder\.0\.weight$",
        # A ResNet's parts by their place in it; 2, 3 and 8 are activation and pooling, without weights.
        rules=(
            _COUNTER,
            (r"projector\..+", None),
            (r"encoder\.0\.(.+)", r"backbone.body.conv1.\1"),
            (r"encoder\.1\.(.+)", r"backbone.body.bn1.\1"),
            *((rf"encoder\.{place}\.(.+)", rf"backbone.body.layer{place - 3}.\1") for place in range(4, 8)),
        ),
    ),
    Adapter(name="RT-DETR's ResNet-D", marker=r"conv1\.conv1_1\.conv\.weight$", rules=(_COUNTER, *resnet_d_rules(""))),
    Adapter(
        name="Swin-Transformer",
        marker=r"patch_embed\.proj\.weight$",
        # The mask of shifted windows follows from the map's size, which differs from image to image here.
        rules=((r"(?:head|norm)\..+", None), (r".*\.attn_mask", None), *swin_rules("")),
    ),
)


def load_backbone(detector: Detector, path: Path) -> LoadReport:
    """Fill a detector's backbone from a classifier's file; the rest of it stays as it is.

    Raises:
        CheckpointError: the file is missing, truncated, not weights, or of another backbone.
    """
    state, provenance = read(path)
    adapter = next((adapter for adapter in ADAPTERS if adapter.recognises(state)), None)
    if adapter is None:
        known = ", ".join(adapter.name for adapter in ADAPTERS)
        raise CheckpointError(f"{path}: parameter names of no published backbone", f"known: {known}")
    translated, ignored = adapter.translate(state, detector)
    own = {name: tensor for name, tensor in detector.state_dict().items() if name.startswith(BACKBONE)}
    wanted = {name: tensor for name, tensor in own.items() if not _OWN.fullmatch(name)}
    what = f"backbone {detector.spec.parts['backbone']}"
    check_fit(translated, wanted, path, what, "is it the file of another backbone, or of another window_size?")
    detector.load_state_dict(translated, strict=False)
    return LoadReport(path, sha256(path), adapter.name, len(translated), tuple(ignored), provenance)
