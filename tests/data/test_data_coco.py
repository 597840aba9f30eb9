"""CocoDataset: labels, crowd, empty boxes, images of every kind, and what is refused."""

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageFile

from detrbench.data import DataSpec, open_dataset
from detrbench.errors import DataError


def open_val(folder, **options):
    return open_dataset(DataSpec("coco", path=folder.root, **options), "val")


def test_ids_ascend_and_labels_are_contiguous(coco_folder):
    dataset = open_val(coco_folder)
    assert dataset.image_ids == [10, 20, 30]
    assert [category.id for category in dataset.categories] == [3, 7, 90]
    assert dataset.num_classes == 3
    target = dataset[0].target
    assert target.labels.tolist() == [1, 0, 2]
    assert [dataset.to_category_id(label) for label in target.labels] == [7, 3, 90]
    assert target.iscrowd.tolist() == [False, False, True]
    np.testing.assert_array_equal(target.boxes[0], [4, 5, 24, 15])
    np.testing.assert_array_equal(target.boxes[1], np.float32([50.2, 40, 64, 48]))  # clamped to 64 x 48
    assert (dataset[0].height, dataset[0].width) == (48, 64)
    assert dataset[1].target.boxes.shape == (0, 4)


def test_labels_that_are_category_ids(coco_folder):
    dataset = open_val(coco_folder, labels="category_id")
    assert dataset.num_classes == 91
    assert dataset[0].target.labels.tolist() == [7, 3, 90]
    assert dataset.to_category_id(12) == 12


def test_boxes_without_area_are_dropped_from_targets_but_stay_in_the_ground_truth(coco_folder):
    boxes = [[5, 5, 0, 3], [70, 5, 3, 3], [5, 60, 3, 3]]  # empty; right of the image; below it
    for number, box in enumerate(boxes, start=5):
        coco_folder.document["annotations"].append(
            {**coco_folder.document["annotations"][0], "id": number, "bbox": box}
        )
    coco_folder.write_annotations()
    dataset = open_val(coco_folder)
    assert len(dataset[0].target.boxes) == 3
    assert len(dataset.coco_ground_truth()["annotations"]) == 7


def test_ground_truth_is_that_of_the_images_in_use(coco_folder):
    coco_folder.document["annotations"][0]["id"] = 0
    coco_folder.write_annotations()
    truth = open_val(coco_folder, limit=2).coco_ground_truth()
    assert [image["id"] for image in truth["images"]] == [10, 20]
    assert [annotation["id"] for annotation in truth["annotations"]] == [1, 2, 3]
    assert [annotation["iscrowd"] for annotation in truth["annotations"]] == [0, 0, 1]
    assert truth["annotations"][1]["bbox"] == [50.2, 40, 13.9, 8.1]
    assert len(truth["categories"]) == 3


def test_empty_images_leave_only_training_and_only_on_request(coco_folder):
    (coco_folder.root / "val2017").rename(coco_folder.root / "train2017")
    coco_folder.annotations.rename(coco_folder.annotations.with_name("instances_train2017.json"))
    for keep, expected in ((True, [10, 20, 30]), (False, [10, 30])):
        spec = DataSpec("coco", path=coco_folder.root, keep_empty=keep)
        assert open_dataset(spec, "train").image_ids == expected


@pytest.mark.parametrize("names", [("val", "instances_val.json"), ("images/val2017", "instances_val2017.json")])
def test_other_layouts(coco_folder, names):
    images, annotations = names
    (coco_folder.root / images).parent.mkdir(exist_ok=True)
    (coco_folder.root / "val2017").rename(coco_folder.root / images)
    coco_folder.annotations.rename(coco_folder.annotations.with_name(annotations))
    assert open_val(coco_folder)[0].image.size == (64, 48)


def test_the_fingerprint_follows_what_the_samples_depend_on(coco_folder):
    first = open_val(coco_folder).fingerprint
    assert open_val(coco_folder).fingerprint == first
    assert open_val(coco_folder, limit=1).fingerprint != first
    assert open_val(coco_folder, labels="category_id").fingerprint != first
    coco_folder.document["annotations"][0]["bbox"][0] = 3
    coco_folder.write_annotations()
    assert open_val(coco_folder).fingerprint != first


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "1", "LA"])
def test_every_mode_becomes_rgb(coco_folder, mode):
    file_format = "JPEG" if mode in ("L", "CMYK") else "PNG"
    Image.new("RGB", (64, 48), (200, 200, 200)).convert(mode).save(coco_folder.images / "a.jpg", format=file_format)
    image = open_val(coco_folder)[0].image
    assert (image.mode, image.size) == ("RGB", (64, 48))


def test_exif_orientation_is_not_applied(coco_folder):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.new("RGB", (64, 48)).save(coco_folder.images / "a.jpg", exif=exif)
    assert open_val(coco_folder)[0].image.size == (64, 48)


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.99])
def test_a_truncated_jpeg_is_never_read_half_grey(coco_folder, share, lenient, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    path = coco_folder.images / "a.jpg"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    dataset = open_val(coco_folder)
    with pytest.raises(DataError, match=r"a\.jpg \(image id 10\): cannot be read") as caught:
        dataset[0]
    assert "detrbench validate" in caught.value.hint
    assert "\n" not in caught.value.message


def test_a_truncated_jpeg_with_a_thumbnail(coco_folder, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    thumbnail = io.BytesIO()
    Image.new("RGB", (8, 8)).save(thumbnail, format="JPEG")
    path = coco_folder.images / "a.jpg"
    data = path.read_bytes()
    segment = b"Exif\0\0" + thumbnail.getvalue()
    segment = b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment
    path.write_bytes((data[:2] + segment + data[2:])[:-200])
    with pytest.raises(DataError, match="truncated"):
        open_val(coco_folder)[0]


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_other_broken_images(coco_folder, content):
    (coco_folder.images / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.jpg \(image id 10\)"):
        open_val(coco_folder)[0]


def test_a_truncated_png_and_a_missing_image(coco_folder):
    path = coco_folder.images / "b.png"
    path.write_bytes(path.read_bytes()[:-60])
    (coco_folder.images / "c.jpg").unlink()
    dataset = open_val(coco_folder)
    with pytest.raises(DataError, match=r"b\.png \(image id 20\)"):
        dataset[1]
    with pytest.raises(DataError, match=r"c\.jpg \(image id 30\): cannot be read: no such file"):
        dataset[2]


def test_an_image_of_another_size_than_recorded(coco_folder):
    Image.new("RGB", (48, 64)).save(coco_folder.images / "a.jpg")
    with pytest.raises(DataError, match="the record says 64x48, the image has 48x64"):
        open_val(coco_folder)[0]


def test_missing_data_sets(tmp_path, coco_folder):
    with pytest.raises(DataError, match="needs the folder") as caught:
        open_dataset(DataSpec("coco"), "val")
    assert "--data PATH" in caught.value.hint
    with pytest.raises(DataError, match=r"no data set at .*nowhere: there is no such folder") as caught:
        open_dataset(DataSpec("coco", path=tmp_path / "nowhere"), "val")
    assert "annotations/instances_val2017.json" in caught.value.hint
    with pytest.raises(DataError, match=r"instances_train2017\.json, .*instances_train\.json"):
        open_dataset(DataSpec("coco", path=coco_folder.root), "train")


def test_broken_json_names_line_and_column(coco_folder):
    text = json.dumps(coco_folder.document, indent=1)
    coco_folder.annotations.write_text(text[: len(text) // 2])
    with pytest.raises(DataError, match=r"instances_val2017\.json:\d+:\d+: not valid JSON"):
        open_val(coco_folder)


def test_a_mistake_that_would_give_wrong_numbers_is_refused(coco_folder):
    coco_folder.document["annotations"][3]["category_id"] = 55
    coco_folder.document["annotations"][0]["bbox"] = [1, 1, float("nan"), 3]
    coco_folder.write_annotations()
    with pytest.raises(DataError, match=r"annotation 1: bbox .*not finite \(and 1 more\)") as caught:
        open_val(coco_folder)
    assert f"detrbench validate {coco_folder.root}" in caught.value.hint


def test_no_images_or_no_categories(coco_folder):
    coco_folder.document["annotations"] = []
    categories, coco_folder.document["categories"] = coco_folder.document["categories"], []
    coco_folder.write_annotations()
    with pytest.raises(DataError, match="no categories"):
        open_val(coco_folder)
    coco_folder.document.update(images=[], categories=categories)
    coco_folder.write_annotations()
    with pytest.raises(DataError, match="no images"):
        open_val(coco_folder)


@pytest.mark.parametrize(
    ("name", "split", "images", "boxes", "crowd", "classes"),
    [
        ("bccd", "train", 292, 3941, 0, 3),
        ("bccd", "val", 72, 945, 0, 3),
        ("tiny_coco_free", "train", 57, 557, 6, 80),
        ("tiny_coco_free", "val", 66, 560, 8, 80),
    ],
)
def test_real_images(real_data, name, split, images, boxes, crowd, classes):
    dataset = open_dataset(DataSpec("coco", path=real_data / name), split)
    assert (len(dataset), dataset.num_classes) == (images, classes)
    annotations = dataset.coco_ground_truth()["annotations"]
    assert (len(annotations), sum(a["iscrowd"] for a in annotations)) == (boxes, crowd)
    sample = dataset[0]
    assert sample.image.size == (sample.width, sample.height)
    assert sample.target.labels.max() < classes


def test_evaluation_keeps_empty_images_and_training_drops_those_with_nothing_but_a_crowd(coco_folder):
    assert open_val(coco_folder, keep_empty=False).image_ids == [10, 20, 30]
    coco_folder.document["annotations"] = coco_folder.document["annotations"][2:]  # image 10 keeps its crowd alone
    coco_folder.write_annotations()
    (coco_folder.root / "val2017").rename(coco_folder.root / "train2017")
    coco_folder.annotations.rename(coco_folder.annotations.with_name("instances_train2017.json"))
    spec = DataSpec("coco", path=coco_folder.root, keep_empty=False)
    assert open_dataset(spec, "train").image_ids == [30]
