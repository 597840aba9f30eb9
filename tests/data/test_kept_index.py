"""The index of a large annotation file is made once, and mapped by every process that reads the file."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_annotation_index import SOUND

from detrbench.data.layouts import coco, index, kept
from detrbench.data.layouts.index import AnnotationIndex
from detrbench.errors import DataError


@pytest.fixture
def annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as large, and a cache of the test's own."""
    monkeypatch.setattr(kept, "LARGE", 1)
    monkeypatch.setenv("DETRBENCH_CACHE", str(tmp_path / "cache"))
    document = json.loads(json.dumps(SOUND))
    document["images"][0]["file_name"] = "földer/b.jpg"
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(document))
    return path


def opened(path: Path) -> AnnotationIndex:
    return coco.of_files(path.parent, path, path.parent).index()


def same(one: AnnotationIndex, other: AnnotationIndex) -> bool:
    fields = [field.name for field in dataclasses.fields(AnnotationIndex)]
    found = {name: (getattr(one, name), getattr(other, name)) for name in fields}
    names, categories = found.pop("file_names"), found.pop("categories")
    arrays = all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in found.values())
    return arrays and list(names[0]) == list(names[1]) and categories[0] == categories[1]


def test_it_is_what_was_read_and_is_read_once(annotations: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = index.read_index(annotations, annotations.parent)
    assert same(opened(annotations), read)
    monkeypatch.setattr(index, "_read", None)
    again = opened(annotations)
    assert same(again, read)
    assert again.file_names[-1] == "földer/b.jpg"
    assert again.file_names[0:2] == ["a.jpg", "földer/b.jpg"]
    assert not again.boxes.flags.writeable
    with pytest.raises(IndexError):
        again.file_names[2]


def test_another_content_is_read_again(annotations: Path) -> None:
    opened(annotations)
    document = json.loads(annotations.read_text())
    document["images"][1]["file_name"] = "c.jpg"  # of the same size
    annotations.write_text(json.dumps(document))
    os.utime(annotations, ns=(1, 1))
    assert opened(annotations).file_names[0] == "c.jpg"


def test_mistakes_are_found_and_nothing_is_kept_of_them(annotations: Path, tmp_path: Path) -> None:
    document = json.loads(annotations.read_text())
    document["annotations"][0]["image_id"] = 99
    annotations.write_text(json.dumps(document))
    for _ in range(2):
        with pytest.raises(DataError, match="no image has id 99"):
            opened(annotations)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", ["cut", "longer", "no JSON", "another format"])
def test_a_damaged_one_is_made_anew(annotations: Path, tmp_path: Path, damage: str) -> None:
    whole = opened(annotations)
    (place,) = (tmp_path / "cache" / "annotations").iterdir()
    content = place.read_bytes()
    damaged = {
        "cut": content[:-1],
        "longer": content + b"x",
        "no JSON": b"x" + content,
        "another format": content.replace(b'"format": 1', b'"format": 0'),
    }
    place.unlink()  # never written into: others have it mapped
    place.write_bytes(damaged[damage])
    assert same(opened(annotations), whole)
    assert place.read_bytes() == content


def test_a_cache_that_cannot_be_written_is_done_without(annotations: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    assert same(opened(annotations), index.read_index(annotations, annotations.parent))


def test_small_files_leave_nothing(annotations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "LARGE", 1 << 23)
    opened(annotations)
    assert not (tmp_path / "cache").exists()


OPEN = """
import sys
from pathlib import Path
from detrbench.data.layouts import kept

def own():  # KiB that no other process has
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0])

kept.LARGE, path, before = 1, Path(sys.argv[1]), own()
index = kept.index_of(path, lambda: sys.exit("read again"))
assert int(index.ends[-1]) == len(index.boxes) and float(index.boxes.sum() + index.area.sum()) > 0
print((own() - before) / 1024, index.boxes.nbytes / 2**20)
input()
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the memory of a process")
def test_processes_share_its_memory(annotations: Path) -> None:
    """Two at once, each after it has touched every page of the boxes: none of it is its own."""
    count = 400_000
    many = AnnotationIndex(
        image_ids=np.arange(count),
        file_names=[f"{number}.jpg" for number in range(count)],
        sizes=np.full((count, 2), 640),
        categories=[],
        ends=np.arange(1, count + 1),
        ids=np.arange(1, count + 1),
        category=np.zeros(count, dtype=np.int64),
        boxes=np.ones((count, 4)),
        area=np.ones(count),
        iscrowd=np.zeros(count, dtype=np.bool_),
    )
    kept.index_of(annotations, lambda: many)
    command = [sys.executable, "-c", OPEN, str(annotations)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    found = [process.stdout.readline().split() for process in processes]  # both are there
    for process in processes:
        process.communicate("\n")
        assert process.returncode == 0
    for own, boxes in found:
        assert float(boxes) > 12
        assert float(own) < 4, "boxes, sizes, ids and names are 35 MiB"
