"""One seeded checkpoint in Deformable DETR of transformers and in ours: equal AP on photographs, in float64."""

from __future__ import annotations

import copy
import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detrbench import models
from detrbench.data import Dataset, DataSpec, open_dataset
from detrbench.data.transforms import Eval
from detrbench.external import loading, sources
from detrbench.external.detector import Adapted
from detrbench.measure import accuracy, protocols, scoring
from detrbench.measure.detections import Detections

pytest.importorskip("transformers", reason="transformers is not installed")
PHOTOGRAPHS = Path(os.environ.get("DETRBENCH_SHARED", Path(__file__).parents[3] / "shared")) / "data/tiny_coco_free"
SMALLER = Eval(128, 192)
COMMON = protocols.get("accuracy")


def photographs() -> Dataset:
    if not PHOTOGRAPHS.is_dir():
        pytest.skip(f"no photographs at {PHOTOGRAPHS}")
    return open_dataset(DataSpec("coco", path=PHOTOGRAPHS, labels="category_id", limit=8), "val")


class Imagined:
    """The photographs with objects where a detector sees some, each a little beside."""

    def __init__(self, dataset: Dataset, found: Detections) -> None:
        self.dataset = dataset
        self.truth = copy.deepcopy(dataset.coco_ground_truth())
        rng, objects = np.random.default_rng(0), []
        for number, index in enumerate(range(0, len(found.scores), 7), start=1):
            x, y, width, height = found.boxes[index].tolist()
            box = [x + 0.1 * width * rng.random(), y, max(width, 1.0), max(height, 1.0)]
            place = {"image_id": int(found.image_ids[index]), "category_id": int(found.category_ids[index])}
            objects.append({"id": number, **place, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
        self.truth["annotations"] = objects

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def coco_ground_truth(self) -> dict[str, Any]:
        return self.truth


@pytest.mark.full
def test_equal_ap_with_one_seeded_checkpoint(tmp_path: Path) -> None:
    dataset, options = photographs(), {"num_labels": 91, "encoder_layers": 2, "decoder_layers": 2}
    seeded = loading.load(sources.parse("hf:deformable_detr"), options, seed=0)
    with torch.no_grad():  # many weights begin at zero, and then say nothing of their names
        for parameter in seeded.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    torch.save(seeded.module.state_dict(), tmp_path / "seeded.pth")
    theirs = loading.load(sources.parse("hf:deformable_detr"), options, 1, tmp_path / "seeded.pth")
    precise = dataclasses.replace(theirs.external, native=SMALLER, arguments=lambda images: (images.double(),))
    theirs = Adapted(precise, "theirs").double().eval()
    ours = models.create("deformable_detr_r50", source="transformers", num_encoder_layers=2, num_decoder_layers=2)
    models.load_checkpoint(ours, tmp_path / "seeded.pth")
    ours.double().eval().register_forward_pre_hook(lambda module, given: (given[0].double(), *given[1:]))

    (found,) = accuracy.collect(ours, dataset, [COMMON], transform=SMALLER).values()
    (again,) = accuracy.collect(theirs, dataset, [COMMON], transform=theirs.external.native).values()
    assert len(found.scores) > 1000
    assert np.array_equal(found.image_ids, again.image_ids)
    assert np.array_equal(found.category_ids, again.category_ids)
    assert np.allclose(found.boxes, again.boxes, atol=1e-3)  # they scale boxes in float32
    truth: Any = Imagined(dataset, found)
    one, other = (scoring.evaluate(each, truth, COMMON).record for each in (found, again))
    assert 5 < one.ap.value < 95
    assert other.stats == pytest.approx(one.stats, abs=1e-9, nan_ok=True)
