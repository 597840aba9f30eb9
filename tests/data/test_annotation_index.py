"""What is accepted in batches is what `check_document` accepts, and a large file takes little memory and time."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detrbench.data import streaming
from detrbench.data.layouts.document import check_document
from detrbench.data.layouts.index import read_index
from detrbench.data.layouts.split import HARMLESS
from detrbench.errors import DataError

SOUND: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "b.jpg", "width": 40, "height": 30},
        {"id": 3, "file_name": "a.jpg", "width": 9, "height": 8},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 5, "bbox": [1, 2.5, 3, 4], "area": 12, "iscrowd": 0},
        {"id": 2, "image_id": 3, "category_id": 2, "bbox": [0, 0, 1, 1], "area": 1.0, "iscrowd": 1},
        {"id": 3, "image_id": 7, "category_id": 2, "bbox": [0, 0, 9, 1], "area": 9, "iscrowd": 0},
    ],
    "categories": [{"id": 5, "name": "five"}, {"id": 2, "name": "two"}],
}
VALUES = [
    None,
    True,
    0,
    -1,
    1,
    2,
    3,
    7,
    5,
    1.5,
    -0.5,
    float("nan"),
    float("inf"),
    "",
    "x",
    "two",
    [],
    [1, 2, 3],
    {},
    [1, 1, 0, 0],
    [1, 1, -1, 0],
]


def changed() -> Iterator[dict[str, Any]]:
    """One value replaced by each other one or left out, one record of another kind, one list that is none."""
    for key, records in SOUND.items():
        for value in VALUES:
            yield {**SOUND, key: [value, *records[1:]]}
        for value in ({}, [], None, "x"):
            yield {**SOUND, key: value}
        for field in records[0]:
            yield {**SOUND, key: [{name: v for name, v in records[0].items() if name != field}, *records[1:]]}
            for value in VALUES:
                yield {**SOUND, key: [{**records[0], field: value}, *records[1:]]}


def test_batches_accept_what_the_checks_accept(tmp_path: Path) -> None:
    path, accepted, refused = tmp_path / "annotations.json", 0, 0
    for document in changed():
        path.write_text(json.dumps(document))
        mistakes = [mistake for mistake in check_document(document) if mistake.kind not in HARMLESS]
        if mistakes:
            refused += 1
            with pytest.raises(DataError, match="annotations") as caught:
                read_index(path, path.parent)
            assert mistakes[0].message in caught.value.message
        else:
            accepted += 1
            read_index(path, path.parent)
    assert min(accepted, refused) > 30


def test_annotations_come_by_image_and_there_as_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "CHUNK", 50)
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(SOUND))
    index = read_index(path, path.parent)
    assert (index.image_ids.tolist(), index.file_names, index.sizes.tolist()) == (
        [3, 7],
        ["a.jpg", "b.jpg"],
        [[9, 8], [40, 30]],
    )
    assert [category.id for category in index.categories] == [2, 5]
    assert index.category[index.of_image(1)].tolist() == [1, 0]
    assert index.boxes[index.of_image(1)].tolist() == [[1, 2.5, 3, 4], [0, 0, 9, 1]]
    assert index.iscrowd[index.of_image(0)].tolist() == [True]


MEASURED = """
import resource, sys, time
from collections.abc import Iterator
from pathlib import Path
from detrbench.data import layouts
from detrbench.data.coco import CocoDataset
before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
path = Path(sys.argv[1])
dataset = CocoDataset(layouts.coco.of_files(path.parent, path, path.parent))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(dataset), (after - before) / 1024)
"""


def write_large(path: Path, images: int, boxes: int) -> None:
    """Made-up annotations of COCO's own proportions: 370 characters of polygon a box."""
    rng = random.Random(0)
    polygon = ", ".join(f"{rng.uniform(0, 640):.2f}" for _ in range(46))
    with path.open("w") as file:
        file.write('{"images": [')
        record = '{{"file_name": "{0:012d}.jpg", "height": 480, "width": 640, "id": {0}}}'
        file.write(", ".join(record.format(number) for number in range(1, images + 1)) + '], "annotations": [')
        for number in range(1, boxes + 1):
            x, y, w, h = (round(rng.uniform(1, 300), 2) for _ in range(4))
            head = (
                f'{", " if number > 1 else ""}{{"segmentation": [[{polygon}]], "area": {w * h / 2:.2f}, "iscrowd": 0, '
            )
            place = f'"image_id": {rng.randrange(images) + 1}, "bbox": [{x}, {y}, {w}, {h}], '
            file.write(head + place + f'"category_id": {number % 80 + 1}, "id": {number}}}')
        categories = [{"id": number, "name": f"class {number}"} for number in range(1, 81)]
        file.write(f'], "categories": {json.dumps(categories)}}}')


def measured(path: Path) -> tuple[int, float]:
    """(images, MiB that opening the data set takes)."""
    done = subprocess.run([sys.executable, "-c", MEASURED, str(path)], capture_output=True, text=True, check=True)
    images, mebibytes = done.stdout.split()
    return int(images), float(mebibytes)


def test_memory_does_not_grow_with_segmentations(tmp_path: Path) -> None:
    write_large(tmp_path / "annotations.json", 4000, 30_000)
    images, mebibytes = measured(tmp_path / "annotations.json")
    assert images == 4000
    assert mebibytes < 60  # parsed whole: 230


@pytest.mark.full
def test_annotations_as_large_as_train2017(tmp_path: Path) -> None:
    write_large(tmp_path / "annotations.json", 118_287, 860_001)
    images, mebibytes = measured(tmp_path / "annotations.json")
    assert images == 118_287
    assert mebibytes < 400
