"""Data sets: folders of annotated images and the generated `shapes`, behind one small interface.

spec.py        DataSpec: which data, as written in a suite                     (torch-free)
samples.py     Sample, Target, Category and the Dataset interface              (torch-free)
layouts/       one reader for each layout of a folder: COCO, Roboflow, YOLO     (torch-free)
reading.py     reading JSON and images so that nothing broken passes           (torch-free)
streaming.py   large JSON files, batch by batch                                (torch-free)
validate.py    what a folder holds, and every mistake in it, with file and id  (torch-free)
contents.py    what a folder's files hold, as one digest                       (torch-free)
coco.py        folders of annotated images, in COCO's terms                    (torch-free)
shapes.py      generated images; drawing.py renders them                       (torch-free)
sizes.py       DETR's rule for the size of a resized image                     (torch-free)
transforms.py  the papers' train and test transforms
loading.py     padded batches in a reproducible order
"""

from __future__ import annotations

from detrbench.data.samples import Category, Dataset, Sample, Target
from detrbench.data.spec import DataSpec, Split

__all__ = ["Category", "DataSpec", "Dataset", "Sample", "Split", "Target", "open_dataset"]


def open_dataset(spec: DataSpec, split: Split) -> Dataset:
    """The data set that `spec` names.

    Raises:
        DataError: the folder or its annotation file is missing or malformed.
    """
    if spec.kind == "coco":
        from detrbench.data.coco import CocoDataset

        return CocoDataset.open(spec, split)
    from detrbench.data.shapes import ShapesDataset

    return ShapesDataset(spec, split)
