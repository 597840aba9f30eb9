"""A small COCO folder to spoil, and the real images where they are."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REAL_DATA = Path(os.environ.get("DETRBENCH_SHARED", Path(__file__).parents[3] / "shared")) / "data"


@pytest.fixture
def real_data():
    """Folder of the real data sets, `bccd` and `tiny_coco_free`."""
    if not (REAL_DATA / "bccd").is_dir():
        pytest.skip(f"no real images at {REAL_DATA}; set DETRBENCH_SHARED to the folder above")
    return REAL_DATA


class CocoFolder:
    """Three images; ids out of order, a crowd, an object across the border, an image without objects."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.document = {
            "images": [
                {"id": 30, "file_name": "c.jpg", "width": 50, "height": 40},
                {"id": 10, "file_name": "a.jpg", "width": 64, "height": 48},
                {"id": 20, "file_name": "b.png", "width": 32, "height": 32},
            ],
            "annotations": [
                annotation(1, 10, 7, [4, 5, 20, 10]),
                annotation(2, 10, 3, [50.2, 40, 13.9, 8.1]),
                annotation(3, 10, 90, [0, 0, 64, 48], iscrowd=1),
                annotation(4, 30, 3, [1, 1, 5, 5]),
            ],
            "categories": [{"id": 90, "name": "brush"}, {"id": 3, "name": "car"}, {"id": 7, "name": "train"}],
        }
        self.images = root / "val2017"
        self.annotations = root / "annotations" / "instances_val2017.json"

    def write(self) -> Path:
        self.images.mkdir(parents=True, exist_ok=True)
        self.annotations.parent.mkdir(exist_ok=True)
        rng = np.random.RandomState(0)
        for record in self.document["images"]:
            pixels = rng.randint(0, 256, (record["height"], record["width"], 3)).astype(np.uint8)
            Image.fromarray(pixels).save(self.images / record["file_name"])
        return self.write_annotations()

    def write_annotations(self) -> Path:
        self.annotations.write_text(json.dumps(self.document))
        return self.root


def annotation(number, image_id, category_id, box, iscrowd=0):
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": box,
        "area": box[2] * box[3],
        "iscrowd": iscrowd,
        "segmentation": [],
    }


@pytest.fixture
def coco_folder(tmp_path):
    folder = CocoFolder(tmp_path / "coco")
    folder.write()
    return folder
