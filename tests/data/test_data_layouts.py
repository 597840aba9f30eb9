"""The layouts in which data come: each is read into the same samples, and its mistakes have names."""

import json

import numpy as np
import pytest
from coco_files import write_coco
from PIL import Image

from detrbench.data import DataSpec, layouts, open_dataset
from detrbench.data.validate import SplitCounts, inspect
from detrbench.errors import DataError, UsageError

SHAPES = DataSpec("shapes", num_train=3, num_val=2, image_size=64, max_objects=3)
NAMES = ["red", "green"]


def picture(path, width=40, height=20):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 120, 30)).save(path)


class Yolo:
    """Two training images, one of them without objects, and one to validate on."""

    def __init__(self, root):
        self.root = root
        self.settings = {"names": NAMES, "nc": 2, "train": "images/train", "val": "images/val"}
        for name in ("train/a.jpg", "train/b.png", "val/c.jpg"):
            picture(root / "images" / name)
        self.label("train/a.txt", "0 0.5 0.5 0.2 0.4\n1 0.25 0.25 0.5 0.5\n")
        self.label("train/b.txt", "")
        self.label("val/c.txt", "1 0.5 0.5 1 1\n")
        self.write()

    def label(self, name, text):
        path = self.root / "labels" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def write(self):
        (self.root / "data.yaml").write_text(json.dumps(self.settings))

    def open(self, split="train"):
        return open_dataset(DataSpec("coco", path=self.root), split)

    def kinds(self):
        return [finding.kind for finding in inspect(self.root).findings]


@pytest.fixture
def yolo(tmp_path):
    return Yolo(tmp_path / "cells")


@pytest.fixture
def generated(tmp_path):
    """Generated images as a COCO folder."""
    for split in ("train", "val"):
        write_coco(open_dataset(SHAPES, split), tmp_path / "coco", split)
    return tmp_path / "coco"


def documents(coco):
    for split in ("train", "val"):
        (path,) = (coco / "annotations").glob(f"instances_{split}*.json")
        yield split, json.loads(path.read_text()), layouts.read(coco, split).images


def as_roboflow(coco, root):
    """Ids from 0, the project's name as the first category, images beside the file."""
    for split, document, images in documents(coco):
        folder = root / {"train": "train", "val": "valid"}[split]
        folder.mkdir(parents=True)
        document["categories"] = [
            {"id": 0, "name": "project", "supercategory": "none"},
            *({**category, "supercategory": "project"} for category in document["categories"]),
        ]
        for number, box in enumerate(document["annotations"]):
            box["id"] = number
        for record in document["images"]:
            (folder / record["file_name"]).write_bytes((images / record["file_name"]).read_bytes())
        (folder / "_annotations.coco.json").write_text(json.dumps(document))
    return root


def as_yolo(coco, root):
    for split, document, images in documents(coco):
        names = [category["name"] for category in document["categories"]]
        number = {category["id"]: i for i, category in enumerate(document["categories"])}
        for record in document["images"]:
            target = root / split / "images" / record["file_name"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((images / record["file_name"]).read_bytes())
            lines = []
            for box in document["annotations"]:
                if box["image_id"] == record["id"]:
                    x, y, w, h = box["bbox"]
                    shares = np.array([x + w / 2, y + h / 2, w, h]) / ([record["width"], record["height"]] * 2)
                    lines.append(f"{number[box['category_id']]} {' '.join(f'{v:.9f}' for v in shares)}")
            labels = root / split / "labels" / target.with_suffix(".txt").name
            labels.parent.mkdir(exist_ok=True)
            labels.write_text("\n".join(lines))
    # As Roboflow writes it: `../train/images` means the folder beside data.yaml.
    settings = {"train": "../train/images", "val": "../val/images", "nc": len(names), "names": names}
    (root / "data.yaml").write_text(json.dumps(settings))
    return root


@pytest.mark.parametrize(("convert", "name"), [(as_roboflow, "Roboflow COCO"), (as_yolo, "YOLO")])
def test_every_layout_gives_the_same_samples(generated, tmp_path, convert, name):
    root = convert(generated, tmp_path / "other")
    found = inspect(root)
    assert (found.layout, found.findings) == (name, [])
    assert found.splits == inspect(generated).splits
    for split in ("train", "val"):
        ours, theirs = (open_dataset(DataSpec("coco", path=path), split) for path in (root, generated))
        assert [c.name for c in ours.categories] == [c.name for c in theirs.categories]
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(np.asarray(one.image), np.asarray(other.image))
            np.testing.assert_array_equal(one.target.labels, other.target.labels)
            np.testing.assert_allclose(one.target.boxes, other.target.boxes, atol=1e-4)


def test_the_first_category_of_roboflow_stays_where_a_box_of_any_split_has_it(generated, tmp_path):
    root = as_roboflow(generated, tmp_path / "other")
    assert "category 0 ('project') is left out" in inspect(root).notes[0]
    path = root / "valid" / "_annotations.coco.json"
    document = json.loads(path.read_text())
    document["annotations"][0]["category_id"] = 0
    path.write_text(json.dumps(document))
    assert inspect(root).notes == []
    train = open_dataset(DataSpec("coco", path=root), "train")
    assert train.categories[0].name == "project"


def test_a_test_split_is_read_and_checked_too(generated, tmp_path):
    root = as_roboflow(generated, tmp_path / "other")
    (root / "valid").rename(root / "test")
    assert list(inspect(root).splits) == ["train", "test"]
    with pytest.raises(DataError, match=r"no annotations of split 'val': looked for .*valid/_annotations"):
        open_dataset(DataSpec("coco", path=root), "val")


def test_boxes_of_yolo_are_pixels_of_the_image(yolo):
    dataset = yolo.open()
    assert (dataset.num_classes, [c.name for c in dataset.categories]) == (2, NAMES)
    np.testing.assert_allclose(dataset[0].target.boxes, [[16, 6, 24, 14], [0, 0, 20, 10]], atol=1e-5)
    assert dataset[0].target.labels.tolist() == [0, 1]
    np.testing.assert_allclose(dataset[0].target.area, [64, 200], atol=1e-4)
    assert dataset[1].target.boxes.shape == (0, 4)
    found = inspect(yolo.root)
    assert found.splits == {"train": SplitCounts(2, 2, 1), "val": SplitCounts(1, 1, 0)}
    assert found.findings == []


def test_the_fingerprint_of_yolo_follows_labels_and_images(yolo):
    first = yolo.open().fingerprint
    assert yolo.open().fingerprint == first
    yolo.label("train/b.txt", "0 0.5 0.5 0.1 0.1")
    second = yolo.open().fingerprint
    assert second != first
    picture(yolo.root / "images/train/d.jpg")
    assert yolo.open().fingerprint != second


@pytest.mark.parametrize(
    ("line", "kind", "message", "box"),
    [
        ("0 0.5 0.5 0.2", "bad_line", "expected class cx cy w h, found 4 numbers", None),
        ("0 0.5 0.5 0.2 0.2 0.9", "bad_line", "found 6 numbers", None),
        ("cat 0.5 0.5 0.2 0.2", "bad_line", "expected numbers", None),
        ("2 0.5 0.5 0.2 0.2", "unknown_category", "class 2: names has 0, 1", None),
        ("0.5 0.5 0.5 0.2 0.2", "unknown_category", "class 0.5", None),
        ("0 20 10 8 8", "not_relative", "from 0 to 1", None),
        ("0 0.5 0.5 nan 0.2", "not_relative", "from 0 to 1", None),
        ("0 0.5 -0.2 0.2 0.2", "not_relative", "from 0 to 1", None),
        ("0 0.9 0.5 0.4 0.4", "box_outside", "by 4.0 pixels", [28, 6, 40, 14]),
        ("0 0.5 0.5 0 0.4", "empty_box", "zero width or height", None),
        ("1 0.1 0.2 0.5 0.1 0.3 0.7", "polygon", "3 points", [4, 2, 20, 14]),
    ],
)
def test_a_mistake_in_labels_has_its_line(yolo, line, kind, message, box):
    path = yolo.label("train/a.txt", f"\n{line}\n")
    (found,) = inspect(yolo.root).findings
    assert (found.file, found.id, found.kind) == (str(path), 2, kind)
    assert message in found.message
    if kind in ("box_outside", "empty_box", "polygon"):
        expected = [] if box is None else [box]
        np.testing.assert_allclose(yolo.open()[0].target.boxes.reshape(-1, 4).tolist(), expected, atol=1e-4)
    else:
        with pytest.raises(DataError, match=r"a\.txt: ") as caught:
            yolo.open()
        assert f"detrbench validate {yolo.root}" in caught.value.hint


def test_images_and_labels_without_each_other_are_named(yolo):
    (yolo.root / "labels/train/b.txt").unlink()
    yolo.label("train/gone.txt", "0 0.5 0.5 0.2 0.2")
    yolo.label("train/classes.txt", "red\ngreen")
    assert sorted(yolo.kinds()) == ["missing_labels", "orphan_labels"]
    assert len(yolo.open()) == 2


def test_images_of_yolo_that_cannot_be_read_or_are_turned(yolo):
    path = yolo.root / "images/train/a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(path, exif=exif)
    assert yolo.kinds() == ["exif_orientation"]
    with pytest.raises(DataError, match="turned by its EXIF tag"):
        yolo.open()
    path.write_bytes(b"nothing")
    assert yolo.kinds() == ["unreadable_image"]
    with pytest.raises(DataError, match=r"a\.jpg: cannot be read"):
        yolo.open()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": {"0": "red", "1": "green"}}, None),
        ({"path": "."}, None),
        ({"path": "/of/another/machine"}, None),
        ({"train": ["images/train", "images/val"]}, None),
        ({"names": None}, "names: expected the names of the classes"),
        ({"names": ["red", "red"]}, "two classes have one name"),
        ({"names": {"cat": "red"}}, "expected the number of a class, found 'cat'"),
        ({"names": {"9" * 30: "red"}}, "expected the number of a class"),
        ({"nc": 3}, "nc is 3, and names has 2 classes"),
        ({"train": "images/nowhere"}, r"train: no such folder: looked for .*images/nowhere"),
        ({"train": None}, "no 'train'"),
        ({"train": "labels/val"}, "no images in labels/val"),
    ],
)
def test_what_data_yaml_may_say(yolo, change, message):
    yolo.settings.update(change)
    yolo.write()
    if message is None:
        assert len(yolo.open()) == (3 if "train" in change else 2)
        return
    with pytest.raises(DataError, match=message):
        yolo.open()


def test_a_list_of_images_is_read(yolo):
    (yolo.root / "train.txt").write_text("./images/train/a.jpg\n")
    yolo.settings["train"] = "train.txt"
    yolo.write()
    assert len(yolo.open()) == 1


def test_labels_may_lie_beside_the_images(tmp_path):
    for name in ("train", "val"):
        picture(tmp_path / name / "a.jpg")
        (tmp_path / name / "a.txt").write_text("0 0.5 0.5 0.5 0.5")
    (tmp_path / "data.yaml").write_text("{names: [red], train: train, val: val}")
    assert len(open_dataset(DataSpec("coco", path=tmp_path), "val")[0].target.boxes) == 1


def test_the_last_folder_called_images_has_labels_beside_it(tmp_path):
    yolo = Yolo(tmp_path / "images" / "cells")
    assert len(yolo.open()[0].target.boxes) == 2


def test_a_split_without_any_labels_is_no_data(yolo):
    (yolo.root / "labels/val/c.txt").unlink()
    with pytest.raises(DataError, match="val: no image has labels") as caught:
        yolo.open("val")
    assert "labels/val/c.txt" in caught.value.hint
    assert yolo.kinds() == ["unreadable_annotations"]


def test_folders_of_no_layout_say_what_was_looked_for(tmp_path, yolo):
    with pytest.raises(
        DataError, match=r"instances_val2017\.json, valid/_annotations\.coco\.json, data\.yaml"
    ) as caught:
        inspect(tmp_path)
    assert "YOLO: PATH/data.yaml with names, train and val" in caught.value.hint
    (yolo.root / "data.yaml").write_text("names: [")
    with pytest.raises(UsageError, match=r"data\.yaml:1:9: not valid YAML"):
        inspect(yolo.root)
