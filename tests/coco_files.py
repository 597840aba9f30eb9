"""Data sets written out as COCO folders, for tests of what reads such folders."""

from __future__ import annotations

import json
from pathlib import Path

from detrbench.data import Dataset, Split


def write_coco(dataset: Dataset, root: Path, split: Split) -> None:
    """Writes a data set as COCO files: `annotations/instances_{split}2017.json` and lossless PNGs in `{split}2017/`.

    The annotation file comes last: where it is there, the images are complete.
    """
    folder = root / f"{split}2017"
    folder.mkdir(parents=True, exist_ok=True)
    document = dataset.coco_ground_truth()
    for index, record in enumerate(document["images"]):
        record["file_name"] = f"{record['id']:012d}.png"
        dataset[index].image.save(folder / record["file_name"])
    annotations = root / "annotations" / f"instances_{split}2017.json"
    annotations.parent.mkdir(exist_ok=True)
    annotations.write_text(json.dumps(document), encoding="utf-8")
