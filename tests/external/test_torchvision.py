"""torchvision's detectors: their published table to the digit, and boxes in the pixels of the stored image."""

from __future__ import annotations

import functools
import random

import numpy as np
import pytest
import torch
from PIL import Image

from detrbench import published
from detrbench.data import Sample, Target
from detrbench.errors import UsageError
from detrbench.external import loading, sources
from detrbench.measure import complexity, protocols
from detrbench.worker import bounds

ROWS = {
    "Faster R-CNN": "fasterrcnn_resnet50_fpn",
    "Faster R-CNN v2": "fasterrcnn_resnet50_fpn_v2",
    "RetinaNet": "retinanet_resnet50_fpn",
    "RetinaNet v2": "retinanet_resnet50_fpn_v2",
    "FCOS": "fcos_resnet50_fpn",
}


@pytest.mark.parametrize("model", ROWS)
def test_the_published_table_is_met(model: str) -> None:
    """GFLOPs in every digit that is printed; with these the rule was found."""
    row = published.load("torchvision/detection").select({"model": model}).values
    create = functools.partial(loading.load, sources.parse(f"torchvision:{ROWS[model]}"), {})
    found = complexity.measure(create, protocols.get("complexity", "torchvision_table"))
    digits = len(str(row["gflops"]).partition(".")[2])
    assert round(found.gflops, digits) == row["gflops"]
    # Released ones have the norms of their backbone frozen, whose 0.05 million values are then no parameters.
    assert found.params_millions == pytest.approx(row["params_M"], abs=0.1)
    assert found.convention.endswith(bounds.REMARK)
    assert sum(found.gflops_by_part.values()) == pytest.approx(found.gflops)
    assert found.gflops_by_part["backbone"] > 0.15 * found.gflops


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown detector of torchvision 'retinanet_resnet50'") as caught:
        loading.load(sources.parse("torchvision:retinanet_resnet50"), {})
    assert "retinanet_resnet50_fpn" in str(caught.value.hint)


def test_its_own_transform_leaves_the_size_alone() -> None:
    """So that it is counted and timed on the images of all others."""
    made = loading.load(sources.parse("torchvision:ssdlite320_mobilenet_v3_large"), {}, seed=0)
    images, _ = made.module.transform([torch.rand(3, 64, 96)])
    assert images.image_sizes == [(64, 96)]


def test_boxes_are_in_pixels_of_the_stored_image() -> None:
    """Ours resizes, theirs does not; the boxes are those of the library on the resized image, scaled back."""
    made = loading.load(sources.parse("torchvision:ssdlite320_mobilenet_v3_large"), {}, seed=0)
    assert (made.native_size, made.external.native.mean) == ((320, 320), (0.0, 0.0, 0.0))
    pixels = np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)
    empty = np.zeros(0)
    target = Target(7, empty.astype(np.int64), np.zeros((0, 4), np.float32), empty.astype(bool), empty)
    image, _ = made.external.native(Sample(Image.fromarray(pixels), target, 48, 80), random.Random(0))
    assert image.shape == (3, 320, 320)
    assert 0 <= float(image.min()) < float(image.max()) <= 1
    with torch.inference_mode():
        out = made(image[None])
        (found,) = made.detections(out, image[None], torch.tensor([[48, 80]]), ["image 7"])
        (theirs,) = made.module([image])
    factors = torch.tensor([80 / 320, 48 / 320, 80 / 320, 48 / 320], dtype=torch.float64)
    assert len(found.scores) > 0
    assert torch.allclose(found.boxes, theirs["boxes"].double() * factors)
