"""The layouts in which folders of annotated images come, one reader each; all are read into COCO's terms.

    coco.py       annotations/instances_train2017.json, train2017/
    roboflow.py   train/_annotations.coco.json beside the images, valid/, test/
    yolo.py       data.yaml, images/, labels/

split.py is what they are read into, index.py the same as arrays, which kept.py keeps of large files; document.py finds
the mistakes in a COCO annotation file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from detrbench.data.layouts import coco, roboflow, yolo
from detrbench.data.layouts.split import AnnotatedSplit
from detrbench.errors import DataError


class Layout(Protocol):
    """A reader: `NAME` in words, `SHAPE` of a folder that it reads, `splits` that it finds there, `read` for one."""

    NAME: str
    SHAPE: str

    def splits(self, root: Path) -> list[str]:
        """The splits that `root` has in this layout, of train, val and test; none where it has another layout."""

    def read(self, root: Path, split: str) -> AnnotatedSplit:
        """One split; raises DataError where it is missing or cannot be read."""


LAYOUTS: tuple[Layout, ...] = (coco, roboflow, yolo)  # the first that finds a split reads the folder

HINT = "lay it out as one of: " + "; ".join(f"{layout.NAME}: {layout.SHAPE}" for layout in LAYOUTS)


def recognise(root: Path) -> Layout:
    """The layout of a folder.

    Raises:
        DataError: no such folder, or no layout that is known.
        SuiteError: a data.yaml that is no YAML.
    """
    if not root.is_dir():
        why = "it is a file, not a folder" if root.exists() else "there is no such folder"
        raise DataError(f"no data set at {root}: {why}", hint=HINT)
    for layout in LAYOUTS:
        if layout.splits(root):
            return layout
    looked = "annotations/instances_val2017.json, valid/_annotations.coco.json, data.yaml"
    raise DataError(f"no data set at {root}: looked for {looked}", hint=HINT)


def read(root: Path, split: str) -> AnnotatedSplit:
    """One split of a folder in any layout; raises DataError."""
    return recognise(root).read(root, split)
