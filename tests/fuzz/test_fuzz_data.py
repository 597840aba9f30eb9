"""Data sets in every layout, images and predictions: read as they are written, or refused with a line."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wholes
import yaml
from answers import Answer, Case, answer
from conftest import Fuzz
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from spoiling import NASTY, damaged, json_file, yaml_text

from detrbench.data import DataSpec, open_dataset
from detrbench.data.layouts.split import HARMLESS
from detrbench.errors import DetrbenchError

ANNOTATIONS = "data/annotations/instances_val2017.json"


def understood(files: wholes.Files) -> None:
    """`validate` finds harm where the data set cannot be opened, and only there; what is opened has sound boxes."""
    with answer(Case(("validate", "data/", "--json"), files)) as found:
        assert found.code in (0, 1, 2), found.err
        findings = json.loads(found.out)["findings"] if found.code < 2 else None
        # Are seen where an image is read; what cannot be read of another split is found by `validate` alone.
        images = {"missing_image", "unreadable_image", "size_differs"}
        refused = _opened(found.folder / "data")
        if refused is None and findings is not None:
            harm = {each["kind"] for each in findings} - HARMLESS - images - {"unreadable_annotations"}
            assert not harm, f"opened in spite of {findings}"
        if refused is not None and findings is not None:
            assert (
                any(each["kind"] not in HARMLESS for each in findings)
                or "no images" in refused
                or "no 'val'" in refused
            ), refused


def _opened(folder: Path) -> str | None:
    """Why the split cannot be opened; where it can, each of its targets is held to what a box may be."""
    try:
        dataset = open_dataset(DataSpec("coco", path=folder), "val")
    except DetrbenchError as error:
        return error.message
    for sample in _readable(dataset):
        boxes, target = sample.target.boxes, sample.target
        assert np.isfinite(boxes).all()
        assert (boxes >= 0).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert (boxes[:, [0, 2]] <= sample.width).all()
        assert (boxes[:, [1, 3]] <= sample.height).all()
        assert (target.labels < dataset.num_classes).all()
        assert (target.labels >= 0).all()
    return None


def _readable(dataset: Any) -> Iterator[Any]:
    for place in range(len(dataset)):
        with contextlib.suppress(DetrbenchError):
            yield dataset[place]


def test_coco(fuzz: Fuzz) -> None:
    fuzz(json_file(wholes.coco()).map(lambda text: {ANNOTATIONS: text, **wholes.coco_images()}), understood)


def test_roboflow(fuzz: Fuzz) -> None:
    document, images = wholes.roboflow()
    spoiled = json_file(document).map(lambda text: {"data/valid/_annotations.coco.json": text, **images})
    fuzz(spoiled, understood)


words = st.sampled_from(
    ["0", "1", "2", "3", "-1", "0.5", "1.0", "1.1", "nan", "inf", "1e9", "x", "\x1b", "\u00b2", "0x1"]
)
labels = st.lists(st.lists(words, max_size=9).map(" ".join), max_size=3).map("\n".join)


@st.composite
def yolo(draw: st.DrawFn) -> wholes.Files:
    settings, files = wholes.yolo()
    files["data/data.yaml"] = yaml.safe_dump(settings).encode()
    how = draw(st.integers(0, 2))
    if how == 0:
        files["data/data.yaml"] = draw(yaml_text(settings))
    elif how == 1:
        files["data/labels/val/c.txt"] = draw(labels.map(lambda text: text.encode()) | st.binary(max_size=30))
    else:
        del files[draw(st.sampled_from(sorted(files)))]
    return files


def test_yolo(fuzz: Fuzz) -> None:
    fuzz(yolo(), understood)


@st.composite
def images(draw: st.DrawFn) -> wholes.Files:
    """The data set with one picture damaged, or of another format or size than its name and record say."""
    form = draw(st.sampled_from(["png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm"]))
    whole = wholes.picture(draw(st.sampled_from([32, 32, 33, 1])), 32, form)
    content = draw(damaged(whole) | st.just(whole) | st.sampled_from(_FOREIGN))
    return {ANNOTATIONS: wholes.text_of(wholes.coco()), **wholes.coco_images(), "data/val2017/20.png": content}


# Formats whose decoders start programs or describe pages, not pixels.
_FOREIGN = [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\nshowpage\n", b"%PDF-1.4\n", b"<svg/>", b"\x00" * 64]


def test_images(fuzz: Fuzz) -> None:
    fuzz(images(), understood)


def scored(content: bytes) -> None:
    """What is scored has pycocotools' figures; what is not is refused by its entry."""
    files = {ANNOTATIONS: wholes.text_of(wholes.coco()), "p.json": content}
    with answer(Case(("evaluate", "p.json", "--data", "data", "--json"), files)) as found:
        if found.code == 0:
            _as_pycocotools(found)


def _as_pycocotools(found: Answer) -> None:
    truth, out = COCO(), io.StringIO()
    with contextlib.redirect_stdout(out):
        truth.dataset = wholes.coco()
        truth.createIndex()
        known = set(truth.imgs)
        entries = json.loads((found.folder / "p.json").read_bytes())
        evaluation = COCOeval(truth, truth.loadRes([e for e in entries if e["image_id"] in known]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ours = list(json.loads(found.out)["record"]["stats"].values())
    theirs = [None if value == -1 else 100 * value for value in evaluation.stats]
    assert ours == pytest.approx(theirs, abs=1e-9), json.dumps(entries)


def test_predictions(fuzz: Fuzz) -> None:
    fuzz(json_file(wholes.predictions()), scored)
    entry = st.tuples(
        st.sampled_from([10, 20, 30, 99]),
        st.sampled_from([3, 7, 90, 1]),
        st.lists(st.floats(-100, 100) | st.sampled_from([0.0, 1e300, -1e300]), min_size=4, max_size=4),
        st.floats(-1, 2) | st.sampled_from([v for v in NASTY if isinstance(v, float)]),
    )
    fields = ("image_id", "category_id", "bbox", "score")
    fuzz(st.lists(entry.map(lambda e: dict(zip(fields, e))), max_size=8).map(wholes.text_of), scored)
