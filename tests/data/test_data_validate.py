"""inspect: each mistake is found once, with file, id and kind; sound folders give nothing."""

import json
import os
from pathlib import Path

import pytest
from coco_files import write_coco
from PIL import Image

from detrbench.data import DataSpec, open_dataset, validate
from detrbench.data.layouts import coco
from detrbench.data.reading import read_json
from detrbench.data.validate import SplitCounts, inspect
from detrbench.errors import DataError


def found(folder):
    return [(finding.kind, finding.id) for finding in inspect(folder.root).findings]


def test_a_sound_folder(coco_folder):
    calls = []
    found = inspect(coco_folder.root, progress=lambda done, total: calls.append((done, total)))
    assert found.findings == []
    assert (found.layout, found.classes) == ("COCO", ["car", "train", "brush"])
    assert found.splits == {"val": SplitCounts(images=3, boxes=4, without_boxes=1)}
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("list_name", "index", "changes", "expected"),
    [
        ("annotations", 0, {"bbox": [60, 5, 20, 10]}, ("box_outside", 1)),
        ("annotations", 0, {"bbox": [-3, 5, 20, 10]}, ("box_outside", 1)),
        ("annotations", 0, {"bbox": [4, 5, 0, 10]}, ("empty_box", 1)),
        ("annotations", 0, {"bbox": [4, 5, -2, 10]}, ("bad_box", 1)),
        ("annotations", 0, {"bbox": [4, 5, float("nan"), 10]}, ("bad_box", 1)),
        ("annotations", 0, {"bbox": [4, 5, float("inf"), 10]}, ("bad_box", 1)),
        ("annotations", 0, {"bbox": [4, 5, 20]}, ("wrong_type", 1)),
        ("annotations", 0, {"bbox": ["4", 5, 20, 10]}, ("wrong_type", 1)),
        ("annotations", 0, {"area": -1}, ("bad_box", 1)),
        ("annotations", 0, {"area": None}, ("wrong_type", 1)),
        ("annotations", 0, {"category_id": 4}, ("unknown_category", 1)),
        ("annotations", 0, {"category_id": "7"}, ("wrong_type", 1)),
        ("annotations", 0, {"image_id": 11}, ("unknown_image", 1)),
        ("annotations", 0, {"iscrowd": 2}, ("bad_iscrowd", 1)),
        ("annotations", 0, {"iscrowd": True}, ("bad_iscrowd", 1)),
        ("annotations", 0, {"id": 2}, ("duplicate_id", 2)),
        ("annotations", 0, {"id": 0}, ("zero_id", 0)),
        ("images", 1, {"width": 65}, ("size_differs", 10)),
        ("images", 1, {"file_name": "gone.jpg"}, ("missing_image", 10)),
        ("images", 1, {"file_name": "../secret.png"}, ("path_outside", 10)),
        ("images", 1, {"file_name": "a/../../secret.png"}, ("path_outside", 10)),
        ("images", 1, {"file_name": "/etc/secret.png"}, ("path_outside", 10)),
        ("categories", 0, {"name": "car"}, ("duplicate_name", 3)),
    ],
)
def test_one_changed_value_is_one_finding(coco_folder, list_name, index, changes, expected):
    coco_folder.document[list_name][index].update(changes)
    coco_folder.write_annotations()
    assert found(coco_folder) == [expected]


@pytest.mark.parametrize(
    ("list_name", "key"),
    [("annotations", key) for key in ("id", "image_id", "category_id", "bbox", "area", "iscrowd")]
    + [("images", key) for key in ("file_name", "width", "height")],
)
def test_missing_keys(coco_folder, list_name, key):
    record = coco_folder.document[list_name][1]
    del record[key]
    coco_folder.write_annotations()
    assert found(coco_folder) == [("missing_key", record.get("id"))]


def test_images_that_do_not_decode(coco_folder):
    path = coco_folder.images / "a.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    (coco_folder.images / "b.png").write_bytes(b"\0" * 100)
    (coco_folder.images / "c.jpg").unlink()
    findings = inspect(coco_folder.root).findings
    assert [(f.kind, f.id) for f in findings] == [
        ("unreadable_image", 10),
        ("unreadable_image", 20),
        ("missing_image", 30),
    ]
    assert findings[0].file == str(path)


def test_duplicates_of_all_kinds(coco_folder):
    for records in coco_folder.document.values():
        records.append(dict(records[0]))
    coco_folder.write_annotations()
    assert found(coco_folder) == [
        ("duplicate_id", 90),
        ("duplicate_name", 90),
        ("duplicate_id", 30),
        ("duplicate_id", 1),
    ]


@pytest.mark.parametrize(
    ("document", "kinds"),
    [
        ([], ["wrong_type"]),
        ({}, ["missing_key"] * 3),
        ({"images": {}, "annotations": None, "categories": []}, ["wrong_type"] * 2),
        ({"images": [1], "annotations": [None], "categories": ["x"]}, ["wrong_type"] * 3),
    ],
)
def test_documents_that_are_no_coco_file(coco_folder, document, kinds):
    coco_folder.annotations.write_text(json.dumps(document))
    assert [finding.kind for finding in inspect(coco_folder.root).findings] == kinds
    with pytest.raises(DataError, match="instances_val2017"):
        open_dataset(DataSpec("coco", path=coco_folder.root), "val")


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe\xfd", b"[" * 100_000])
def test_broken_json_is_a_finding(coco_folder, content):
    coco_folder.annotations.write_bytes(content)
    assert found(coco_folder) == [("unreadable_annotations", None)]


def test_both_splits_are_read_and_their_categories_compared(coco_folder):
    train = coco_folder.annotations.with_name("instances_train2017.json")
    document = json.loads(coco_folder.annotations.read_text())
    document["categories"][0]["name"] = "comb"
    train.write_text(json.dumps(document))
    findings = inspect(coco_folder.root).findings
    assert [(f.kind, f.id) for f in findings] == [("missing_folder", None), ("categories_differ", 90)]
    (coco_folder.root / "train2017").mkdir()
    for name in ("a.jpg", "b.png", "c.jpg"):
        Image.open(coco_folder.images / name).save(coco_folder.root / "train2017" / name)
    assert found(coco_folder) == [("categories_differ", 90)]


def test_a_folder_without_annotations(tmp_path):
    with pytest.raises(DataError, match="instances_val2017"):
        inspect(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        inspect(tmp_path / "nowhere")


def test_generated_data_is_sound(tmp_path):
    spec = DataSpec("shapes", num_train=3, num_val=4, image_size=64)
    for split in ("train", "val"):
        write_coco(open_dataset(spec, split), tmp_path, split)
    assert inspect(tmp_path).findings == []


@pytest.mark.parametrize("name", ["bccd", "tiny_coco_free"])
def test_real_images_are_sound(real_data, name):
    assert inspect(real_data / name).findings == []


def test_what_is_no_file_is_not_read(coco_folder):
    image = coco_folder.images / coco_folder.document["images"][1]["file_name"]
    image.unlink()
    os.mkfifo(image)  # reading it would wait for ever
    assert [kind for kind, _ in found(coco_folder)] == ["missing_image"]
    with pytest.raises(DataError, match="not a regular file"):
        open_dataset(DataSpec(kind="coco", path=coco_folder.root), "val")[0]
    with pytest.raises(DataError, match="not a regular file"):
        read_json(Path("/dev/zero"))


def test_sound_annotations_are_never_held_whole(coco_folder, monkeypatch):
    coco_folder.document["annotations"][0].update(bbox=[60, 5, 20, 10])  # harmless
    coco_folder.write_annotations()

    def refuse(path):
        raise AssertionError(f"{path} was read whole")

    monkeypatch.setattr(coco, "read_json", refuse)
    monkeypatch.setattr(validate, "_AHEAD", 2)
    calls = []
    found = inspect(coco_folder.root, progress=lambda done, total: calls.append((done, total)))
    assert [(finding.kind, finding.id) for finding in found.findings] == [("box_outside", 1)]
    assert calls == [(1, 3), (2, 3), (3, 3)]
